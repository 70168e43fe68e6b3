"""What an answer finds changed while it is judged."""

import pkgutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from lessons.exercise import Exercise, Foul

WALKS = "minidl.tensor.run_backward", "minidl.autograd.run_backward"  # over a tape: of backward(), and of grad()


@contextmanager
def replacements(exercise: Exercise) -> Iterator[list[int]]:
    """The rules of `exercise`, for the time in which the learner's file is loaded and judged.

    minidl's autograd and what is the exercise's `own` end the answer that calls them. Python's recursion limit stays
    as it is: the list that is given gets those that are asked for.
    """
    asked: list[int] = []
    makers = {"sys.setrecursionlimit": lambda original: asked.append}
    makers |= dict.fromkeys(WALKS, _forbidden("its autograd"))
    makers |= {name: _forbidden(name) for name in exercise.own} | exercise.stand_ins
    with ExitStack() as stack:
        for name, make in makers.items():
            stack.enter_context(_replaced(name, make))
        yield asked


@contextmanager
def _replaced(name: str, make: Callable[[Callable], Callable]) -> Iterator[None]:
    owner_name, _, attribute = name.rpartition(".")
    owner = pkgutil.resolve_name(owner_name)
    original = getattr(owner, attribute)
    setattr(owner, attribute, make(original))
    try:
        yield
    finally:
        setattr(owner, attribute, original)


def _forbidden(what: str) -> Callable[[Callable], Callable]:
    def make(original: Callable) -> Callable:
        def used(*arguments, **options):
            raise Foul("borrowed", f"It lets minidl do the work, by {what}: write out yourself what is asked.")

        return used

    return make
