"""What is changed in place, and when: a backward that needs what was there before is refused.

Changes and the ops of a tape are numbered by one clock, `tick`: an array that an op saves for its backward must not
have been changed after the op was recorded.
"""

from __future__ import annotations

import weakref
from itertools import count
from typing import TYPE_CHECKING

from minidl.kernels import BY_ARRAY, for_array

if TYPE_CHECKING:
    from minidl.op import Op

tick = count(1).__next__
newest = 0  # when the last change was
_changes: dict[tuple, tuple[weakref.ref, int]] = {}  # where memory was changed: its owner, and when


def changed(array) -> None:
    """Tell the tape that `array` was changed in place: a backward that needs what was there is refused."""
    global newest
    newest = tick()
    owner, start, end = for_array(array).extent(array)
    key = id(owner), start, end
    _changes[key] = weakref.ref(owner, lambda _: _changes.pop(key, None)), newest


def refuse_changed(op: Op) -> None:
    """RuntimeError if an array that `op` saves was changed after the op ran."""
    later = [place for place, (_, time) in _changes.items() if time > -op.order]
    if not later:
        return
    for name, value in vars(op).items():
        for array in value if isinstance(value, tuple | list) else (value,):  # a key has several arrays
            if type(array) not in BY_ARRAY:
                continue
            owner, first, last = op.kernels.extent(array)
            if any(id(owner) == changed_owner and first < end and start < last for changed_owner, start, end in later):
                raise RuntimeError(
                    f"{type(op).__name__} needs its {name} of shape {array.shape} to go backward, but it was "
                    "changed in place after the forward: change it later, or a copy of it"
                )
