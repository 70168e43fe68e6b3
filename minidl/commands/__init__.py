"""The commands of `python -m minidl`, one a file: the arguments each takes, and what it does with them."""
