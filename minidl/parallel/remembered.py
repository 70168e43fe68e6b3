"""What running blocks on meta has shown, for whoever predicts another plan or batch of a model that has them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from operator import is_
from typing import TypeVar

from minidl import ops
from minidl.kernels import meta

Value = TypeVar("Value")


class Remembered:
    """The `most` values that were asked for last, by keys that say all that determines them.

    What keys do not say, the functions of ops and of the meta device, is looked at too: once one is another, as in a
    test that replaces it, all is forgotten.
    """

    def __init__(self, most: int):
        self.most = most
        self._values: OrderedDict[Hashable, object] = OrderedDict()
        self._code: list[object] = []

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of `key`, made if it is not there."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        self._values[key] = made = make()
        if len(self._values) > self.most:
            self._values.popitem(last=False)
        return made

    def check(self) -> None:
        """Forget all if other functions would run now than when it was found."""
        code = [*vars(ops).values(), *vars(meta).values()]
        if not (len(code) == len(self._code) and all(map(is_, code, self._code))):
            self._values.clear()
            self._code = code
