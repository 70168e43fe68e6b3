"""Covering arrays over the fields of plans, and runs under a plan compared with those of one worker."""

import itertools
from math import prod

import numpy as np

from minidl import nn, optim
from minidl.parallel import train
from tests.parallel.plans import VALUES, plan_or_none

MAX_WORKERS = 8
BUCKET_MB = 0.001  # so that each layer has a bucket


def fields(case):
    """What of a case is the plan's."""
    return {name: value for name, value in case.items() if name in VALUES} | {"bucket_mb": BUCKET_MB}


def cases_of(options, fits=lambda plan: True, workers=MAX_WORKERS):
    """The cases of all values of `options`, those of a plan first, that hold and have at most so many workers."""
    of_plan = {name: values for name, values in options.items() if name in VALUES}
    held = []
    for values in itertools.product(*of_plan.values()):
        plan = plan_or_none(fields(dict(zip(of_plan, values, strict=True))))
        if plan is not None and plan.workers <= workers and fits(plan):
            held.append(values)
    others = itertools.product(*(values for name, values in options.items() if name not in VALUES))
    return [dict(zip(options, (*a, *b), strict=True)) for a, b in itertools.product(held, list(others))]


def cover(cases, strength=2):
    """Of `cases` some, greedily chosen, in which those values of `strength` options meet that meet in any of them."""
    values = [list(dict.fromkeys(column)) for column in zip(*(case.values() for case in cases), strict=True)]
    places = np.array([[known.index(v) for known, v in zip(values, case.values(), strict=True)] for case in cases])
    sizes, codes, start = [len(known) for known in values], [], 0
    for chosen in itertools.combinations(range(len(sizes)), strength):
        shape = [sizes[n] for n in chosen]
        codes.append(start + np.ravel_multi_index(places[:, chosen].T, shape))
        start += prod(shape)
    met = np.stack(codes, 1)  # (cases, combinations of options), each a number of its own
    missing, found = np.zeros(start, bool), []
    missing[met] = True
    while missing.any():
        best = missing[met].sum(1).argmax()
        found.append(cases[best])
        missing[met[best]] = False
    return found


def meetings(cases, strength=2):
    """All that meets in `cases`."""
    return {met for case in cases for met in itertools.combinations(case.items(), strength)}


def case_id(case):
    return " ".join(f"{key}={value}" for key, value in case.items())


def run(build, dataset, plan, momentum=0.0, dtype="float64", steps=4, batch_size=16, lr=0.3, **options):
    settings = dict(loss=nn.CrossEntropyLoss(), optimizer=lambda p: optim.SGD(p, lr=lr, momentum=momentum)) | options
    return train(build, dataset, plan, batch_size=batch_size, steps=steps, dtype=dtype, timeout=120, **settings)


def difference(a, b):
    """The norm of the difference, relative to the norm."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def assert_same(got, expected, tolerance, without=()):
    """The losses and the state are the same, but for the values of names that end in one of `without`."""
    assert len(got.losses) == len(expected.losses)
    assert difference(got.losses, expected.losses) < tolerance
    ours, theirs = got.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].shape == theirs[name].shape and ours[name].dtype == theirs[name].dtype
    compared = [name for name in theirs if not name.endswith(tuple(without))]
    flat, reference = (np.concatenate([s[name].ravel() for name in compared]) for s in (ours, theirs))
    assert difference(flat, reference) < tolerance
