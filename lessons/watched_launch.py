"""What the workers of an answer did, known to the check that judges it."""

from collections.abc import Callable
from functools import partial

import numpy as np

from minidl import Tensor

HANG_SECONDS = 10  # in which the workers of an answer must get on, or they hang


class WatchedLaunch:
    """The last launch of an answer, whose workers run as ever.

    workers: how many there were, 0 before the first. returned, collectives, given: by rank what its function returned,
    the names of its collectives, and the arrays that it handed to all_reduce.
    """

    def __init__(self):
        self.workers = 0

    def stand_in(self, launch: Callable) -> Callable:
        """What an answer gets in place of `minidl.parallel.launch`."""

        def watched_launch(work, workers, *arguments, **options):
            watched_work = _Watched(work) if callable(work) else work
            results = launch(watched_work, workers, *arguments, **{"timeout": HANG_SECONDS, **options})
            self.workers = len(results)
            self.returned, self.collectives, self.given = zip(*results, strict=True)
            return list(self.returned)

        return watched_launch


class _Watched:
    """`work` in a worker. No closure: a traceback then tells its lines from those of the answer."""

    def __init__(self, work: Callable):
        self.work = work

    def __call__(self, group, *arguments, **options):
        collectives: list[str] = []
        given: list[np.ndarray] = []
        group.all_reduce = partial(_all_reduce, group.all_reduce, given)
        group.on_collective = lambda handle: collectives.append(handle.call.name)
        return self.work(group, *arguments, **options), collectives, given


def _all_reduce(all_reduce: Callable, given: list[np.ndarray], x, *arguments, **options):
    given.append(np.array(x.numpy() if isinstance(x, Tensor) else x))
    return all_reduce(x, *arguments, **options)
