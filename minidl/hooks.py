"""What registering a hook gives."""

from collections.abc import Callable


class RemovableHandle:
    """Takes a hook away again: `remove()`."""

    def __init__(self, remove: Callable[[], None]):
        self.remove = remove
