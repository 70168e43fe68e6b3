from minidl.taped import taped  # noqa: F401
