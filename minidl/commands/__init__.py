"""The commands of `python -m minidl`, one a file, and what they share with `python -m simulator`."""
