"""What all tests share."""

from hypothesis import settings

settings.register_profile("minidl", deadline=None)  # a slow machine is no error
settings.load_profile("minidl")
