"""What was found once, for whoever predicts another plan or batch of a model; until the code is another."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from operator import is_
from types import ModuleType
from typing import TypeVar

from minidl import ops
from minidl.kernels import meta

Value = TypeVar("Value")


class Code:
    """What is in some modules and classes. as_it_was: nobody has replaced any of it, as a test may."""

    def __init__(self, *places: ModuleType | type):
        self._places = places
        self._found = self._now()

    def _now(self) -> list[object]:
        return [value for place in self._places for value in vars(place).values()]

    @property
    def as_it_was(self) -> bool:
        now = self._now()
        return len(now) == len(self._found) and all(map(is_, now, self._found))


class Remembered:
    """The `most` values that were asked for last, by keys that say all that determines them.

    What keys do not say, the functions of ops and of the meta device, is looked at too: once one is another, all is
    forgotten.
    """

    def __init__(self, most: int):
        self.most = most
        self._values: OrderedDict[Hashable, object] = OrderedDict()
        self._code = Code(ops, meta)

    def get(
        self, key: Hashable, make: Callable[[], Value], holds: Callable[[Value], bool] = lambda value: True
    ) -> Value:
        """The value of `key`, made if it is not there, or no longer holds."""
        if key in self._values and holds(self._values[key]):
            self._values.move_to_end(key)
            return self._values[key]
        self._values[key] = made = make()
        self._values.move_to_end(key)
        if len(self._values) > self.most:
            self._values.popitem(last=False)
        return made

    def get_for(self, things: Sequence[object], key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of `key` for these very things, which are kept with it; they must not change."""
        return self.get((key, *map(id, things)), lambda: (make(), things))[0]

    def forget(self, key: Hashable) -> None:
        """Whatever is there."""
        self._values.pop(key, None)

    def check(self) -> None:
        """Forget all if other functions would run now than when it was found."""
        if not self._code.as_it_was:
            self._values.clear()
            self._code = Code(ops, meta)
