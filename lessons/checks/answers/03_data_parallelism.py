"""Answers to lesson 3: `exercise` is right, `exercise__mistake` is wrong in the way that its name says.

What comes after a second `__` tells two ways to the same mistake apart.
"""

import math

import numpy as np

from minidl.parallel import launch


def average_gradients(gradients, sizes):
    return sum(size * gradient for size, gradient in zip(sizes, gradients, strict=True)) / sum(sizes)


def average_gradients__unweighted(gradients, sizes):
    return np.mean(gradients, axis=0)


def average_gradients__sum(gradients, sizes):
    return np.sum(gradients, axis=0)


def average_gradients__undivided(gradients, sizes):
    return sum(size * gradient for size, gradient in zip(sizes, gradients, strict=True))


def average_gradients__count(gradients, sizes):
    return average_gradients__undivided(gradients, sizes) / len(sizes)


def average_gradients__rounded(gradients, sizes):
    return average_gradients__undivided(gradients, sizes) // sum(sizes)


def average_gradients__in_place(gradients, sizes):
    total = gradients[0]
    total *= sizes[0]
    for size, gradient in zip(sizes[1:], gradients[1:], strict=True):
        total += size * gradient
    return total / sum(sizes)


def average_gradients__form(gradients, sizes):
    return "the mean"


def average_gradients__shape(gradients, sizes):
    return np.mean(np.concatenate(gradients), axis=0)


def average_gradients__value(gradients, sizes):
    return gradients[0]


def mean_gradient(x, y, w):
    return 2 * (x @ w - y) @ x / len(x)


def _own(group, x, y, w):
    """The sum of the gradients of this worker's samples."""
    own = np.array_split(np.arange(len(x)), group.size)[group.rank]
    return mean_gradient(x[own], y[own], w) * len(own)


def parallel_gradient(x, y, w, workers):
    def work(group):
        return group.all_reduce(_own(group, x, y, w)) / len(x)

    return launch(work, workers)


def parallel_gradient__worker_without_return(x, y, w, workers):
    def work(group):
        total = group.all_reduce(_own(group, x, y, w)) / len(x)
        if group.rank == 0:
            return total

    return launch(work, workers)


def parallel_gradient__no_launch(x, y, w, workers):
    return [mean_gradient(x, y, w)] * workers


def parallel_gradient__workers(x, y, w, workers):
    return launch(lambda group: group.all_reduce(_own(group, x, y, w)) / len(x), 1) * workers


def parallel_gradient__list(x, y, w, workers):
    return launch(lambda group: group.all_reduce(_own(group, x, y, w)) / len(x), workers)[0]


def parallel_gradient__not_reduced(x, y, w, workers):
    return launch(lambda group: _own(group, x, y, w) / len(x), workers)


def parallel_gradient__not_what_was_reduced(x, y, w, workers):
    def work(group):
        own = _own(group, x, y, w)
        group.all_reduce(own.copy())
        return own / len(x)

    return launch(work, workers)


def parallel_gradient__other_way(x, y, w, workers):
    return launch(lambda group: group.all_gather(_own(group, x, y, w)[None]).sum(axis=0) / len(x), workers)


def parallel_gradient__whole_batch(x, y, w, workers):
    return launch(lambda group: group.all_reduce(mean_gradient(x, y, w)) / group.size, workers)


def parallel_gradient__left_over(x, y, w, workers):
    def work(group):
        size = len(x) // group.size
        own = slice(group.rank * size, (group.rank + 1) * size)
        return group.all_reduce(mean_gradient(x[own], y[own], w)) / group.size

    return launch(work, workers)


def parallel_gradient__unweighted(x, y, w, workers):
    def work(group):
        own = np.array_split(np.arange(len(x)), group.size)[group.rank]
        return group.all_reduce(mean_gradient(x[own], y[own], w)) / group.size

    return launch(work, workers)


def parallel_gradient__undivided(x, y, w, workers):
    return launch(lambda group: group.all_reduce(_own(group, x, y, w)), workers)


def parallel_gradient__twice(x, y, w, workers):
    return launch(lambda group: group.all_reduce(_own(group, x, y, w) / len(x)) / group.size, workers)


def parallel_gradient__shape(x, y, w, workers):
    return launch(lambda group: group.all_reduce(_own(group, x, y, w)).mean() / len(x), workers)


def parallel_gradient__value(x, y, w, workers):
    return launch(lambda group: group.all_reduce(_own(group, x, y, w), op="max") / len(x), workers)


def parallel_gradient__form(x, y, w, workers):
    return launch(lambda group: str(group.all_reduce(_own(group, x, y, w)) / len(x)), workers)


def parallel_gradient__worker(x, y, w, workers):
    """Only one worker calls the collective."""

    def work(group):
        total = _own(group, x, y, w)
        if group.rank == 0:
            group.all_reduce(total)
        return total / len(x)

    return launch(work, workers)


def parallel_gradient__error(x, y, w, workers):
    return launch(_own(None, x, y, w), workers)


def ring_all_reduce_seconds(nbytes, workers, alpha, beta):
    return 2 * (workers - 1) * (alpha + nbytes / workers * beta)


def ring_all_reduce_seconds__alone(nbytes, workers, alpha, beta):
    return 2 * workers * (alpha + nbytes / workers * beta)


def ring_all_reduce_seconds__steps(nbytes, workers, alpha, beta):
    return 2 * workers * (alpha + nbytes / workers * beta) if workers > 1 else 0


def ring_all_reduce_seconds__whole(nbytes, workers, alpha, beta):
    return 2 * (workers - 1) * (alpha + nbytes * beta)


def ring_all_reduce_seconds__half(nbytes, workers, alpha, beta):
    return (workers - 1) * (alpha + nbytes / workers * beta)


def ring_all_reduce_seconds__no_latency(nbytes, workers, alpha, beta):
    return 2 * (workers - 1) / workers * nbytes * beta


def ring_all_reduce_seconds__one_latency(nbytes, workers, alpha, beta):
    return (alpha if workers > 1 else 0) + 2 * (workers - 1) / workers * nbytes * beta


def ring_all_reduce_seconds__rounded(nbytes, workers, alpha, beta):
    return 2 * (workers - 1) * (alpha + nbytes // workers * beta)


def ring_all_reduce_seconds__in_turn(nbytes, workers, alpha, beta):
    return 2 * (workers - 1) * (workers * alpha + nbytes * beta)


def ring_all_reduce_seconds__rounded__up(nbytes, workers, alpha, beta):
    return 2 * (workers - 1) * (alpha + math.ceil(nbytes / workers) * beta)


def ring_all_reduce_seconds__no_bytes(nbytes, workers, alpha, beta):
    return 2 * (workers - 1) * alpha


def ring_all_reduce_seconds__rate(nbytes, workers, alpha, beta):
    return 2 * (workers - 1) * (alpha + nbytes / workers / beta)


def ring_all_reduce_seconds__value(nbytes, workers, alpha, beta):
    return (workers - 1) * (alpha + nbytes * beta)


def ring_all_reduce_seconds__form(nbytes, workers, alpha, beta):
    return [alpha, beta]


def _bound(seconds_per_sample, communication, workers):
    return communication / (seconds_per_sample * (1 - 1 / workers))


def break_even_batch(seconds_per_sample, communication, workers):
    return (math.floor(_bound(seconds_per_sample, communication, workers) / workers) + 1) * workers


def break_even_batch__tie(seconds_per_sample, communication, workers):
    return math.ceil(_bound(seconds_per_sample, communication, workers) / workers) * workers


def break_even_batch__not_divisible(seconds_per_sample, communication, workers):
    return math.floor(_bound(seconds_per_sample, communication, workers)) + 1


def break_even_batch__free_workers(seconds_per_sample, communication, workers):
    return (math.floor(communication / seconds_per_sample / workers) + 1) * workers


def break_even_batch__time(seconds_per_sample, communication, workers):
    batch = workers
    while batch * seconds_per_sample <= batch / workers * seconds_per_sample + communication:
        batch += workers
    return batch


def break_even_batch__float(seconds_per_sample, communication, workers):
    return (np.floor(_bound(seconds_per_sample, communication, workers) / workers) + 1) * workers


def break_even_batch__form(seconds_per_sample, communication, workers):
    return f"{_bound(seconds_per_sample, communication, workers):.0f}"


def break_even_batch__too_small(seconds_per_sample, communication, workers):
    return workers


def break_even_batch__too_large(seconds_per_sample, communication, workers):
    return (math.floor(_bound(seconds_per_sample, communication, workers) / workers) + 2) * workers
