"""The checks of lesson 3."""

import math
import operator

import numpy as np

from lessons.exercise import Exercise, Mistake, number, numbers
from lessons.watched_launch import WatchedLaunch
from minidl.parallel import forkserver


def check_average_gradients(average_gradients):
    generator = np.random.default_rng(0)
    for sizes in [8, 8], [15, 14], [3, 5, 0, 1], [7]:
        gradients = [generator.normal(size=(2, 3)) for _ in sizes]
        kept = [g.copy() for g in gradients]
        result = numbers(average_gradients(gradients, list(sizes)))
        if not all(np.array_equal(a, b) for a, b in zip(gradients, kept, strict=True)):
            raise Mistake("in place", "It changes the gradients that it was given.")
        _explain_average(result, kept, sizes)


def _explain_average(result, gradients, sizes):
    weighted = sum(size * g for size, g in zip(sizes, gradients, strict=True))
    case = f"With parts of {', '.join(map(str, sizes))} samples"
    if result.shape != gradients[0].shape:
        raise Mistake("shape", f"{case}: the result has shape {result.shape}, the gradients {gradients[0].shape}.")
    if np.allclose(result, weighted / sum(sizes)):
        return
    if np.allclose(result, np.mean(gradients, axis=0)):
        raise Mistake(
            "unweighted",
            f"{case}: it averages the averages, so that a sample of a small part counts more than one of a large part. "
            "Weight each part by its number of samples.",
        )
    if np.allclose(result, np.sum(gradients, axis=0)):
        raise Mistake("sum", f"{case}: it adds the gradients and divides by nothing: the step would be too long.")
    if np.allclose(result, weighted):
        raise Mistake("undivided", f"{case}: the weighted sum is right; divide it by the number of all samples.")
    if np.allclose(result, weighted / len(sizes)):
        raise Mistake("count", f"{case}: it divides by the number of parts; divide by the number of samples.")
    if np.allclose(result, np.floor(weighted / sum(sizes))):
        raise Mistake("rounded", f"{case}: it rounds down: `//` does, divide with `/`.")
    raise Mistake("value", f"{case}: it is not the gradient of the whole batch.")


LAUNCH = WatchedLaunch()


def check_parallel_gradient(parallel_gradient):
    generator = np.random.default_rng(0)
    x, y, w = generator.normal(size=(7, 4)), generator.normal(size=7), generator.normal(size=4)
    with forkserver():
        for workers in 2, 3:
            LAUNCH.workers = 0
            result = parallel_gradient(x.copy(), y.copy(), w.copy(), workers)
            _explain_launch(workers, result)
            for rank, gradient in enumerate(result):
                _explain_gradient(f"Worker {rank} of {workers}", numbers(gradient), rank, x, y, w)


def _explain_launch(workers, result):
    if not LAUNCH.workers:
        raise Mistake(
            "no launch",
            "It starts no workers: `launch(work, workers)` of minidl.parallel does, and gives a list of what "
            "`work(group)` returned in each.",
        )
    if LAUNCH.workers != workers:
        raise Mistake(
            "workers",
            f"It launches {LAUNCH.workers} worker(s) where {workers} are asked for: the argument `workers` says "
            "how many.",
        )
    for rank, returned in enumerate(LAUNCH.returned):
        if returned is None:
            raise Mistake(
                "worker without return",
                f"Worker {rank} returns nothing: the function that is launched must `return` the gradient, in "
                "every worker.",
            )
    if not isinstance(result, (list, tuple)) or len(result) != workers:
        raise Mistake(
            "list",
            f"It is to return the whole list that `launch` gives, one gradient for each of the {workers} workers.",
        )


def _explain_gradient(who, gradient, rank, x, y, w):
    workers = LAUNCH.workers
    own = np.array_split(np.arange(len(x)), workers)
    sums = [_sum_gradient(x[part], y[part], w) for part in own]
    means = [total / len(part) for total, part in zip(sums, own, strict=True)]
    whole = sum(sums)

    def near(*forms):
        return any(gradient.shape == form.shape and np.allclose(gradient, form, rtol=1e-4, atol=1e-6) for form in forms)

    if gradient.shape != w.shape:
        raise Mistake("shape", f"{who} returns something of shape {gradient.shape}; w has shape {w.shape}.")
    if near(means[rank], sums[rank], sums[rank] / len(x)):
        if "all_reduce" in LAUNCH.collectives[rank]:
            raise Mistake(
                "not what was reduced",
                f"{who} returns the gradient of its own part, which it had before the all-reduce; return what "
                "became of the array that it gave.",
            )
        raise Mistake(
            "not reduced",
            f"{who} returns the gradient of its own part: the workers must add theirs up with `group.all_reduce`.",
        )
    if not all("all_reduce" in names for names in LAUNCH.collectives):
        raise Mistake(
            "other way",
            f"{who} does not call `group.all_reduce`, by which the workers are to add up the gradients of their "
            "own parts.",
        )
    given = [np.concatenate([np.ravel(array) for array in arrays]) for arrays in LAUNCH.given]
    if all(np.array_equal(arrays, given[0]) for arrays in given):
        raise Mistake(
            "whole batch",
            "Every worker gives the same array to all_reduce, so each does all the work: worker `group.rank` is "
            "to look at its own part of the samples.",
        )
    if near(whole / len(x)):
        return
    used = len(x) // workers * workers
    left = _sum_gradient(x[:used], y[:used], w)
    if near(left / used, left / len(x), left / workers):
        raise Mistake(
            "left over",
            f"{len(x)} samples on {workers} workers: the parts that it makes leave out the last. np.array_split "
            "leaves none out.",
        )
    if near(sum(means) / workers):
        raise Mistake(
            "unweighted",
            f"{who} has the average of the averages; a sample of a small part counts too much. Add up sums over "
            "samples, and divide once by the number of all.",
        )
    if near(whole, sum(means)):
        raise Mistake("undivided", f"{who} has a sum: divide it by the number of all samples, {len(x)}.")
    if near(whole / len(x) / workers, whole / len(x) ** 2, sum(means) / len(x)):
        raise Mistake("twice", f"{who} divides twice: the sum over all samples is divided by their number, once.")
    raise Mistake("value", f"{who} returns {gradient}; the gradient of the whole batch is {whole / len(x)}.")


def _sum_gradient(x, y, w):
    return 2 * (x @ w - y) @ x


def check_ring_all_reduce_seconds(ring_all_reduce_seconds):
    if number(ring_all_reduce_seconds(1000, 1, 1e-6, 1e-9)) != 0:
        raise Mistake("alone", "One worker has nobody to send to: 0 seconds.")
    for nbytes, workers, alpha, beta in (
        (4096, 8, 2e-5, 1e-10),
        (10**9, 64, 1e-6, 4e-11),
        (1000, 3, 1e-6, 1e-9),
        (3, 8, 1e-9, 1e-6),
        (1_000_000, 2, 5e-6, 1e-9),
    ):
        seconds = number(ring_all_reduce_seconds(nbytes, workers, alpha, beta))
        _explain_ring(f"For {nbytes} bytes on {workers} workers", seconds, nbytes, workers, alpha, beta)


def _explain_ring(case, seconds, nbytes, workers, alpha, beta):
    steps, chunk = 2 * (workers - 1), nbytes / workers

    def is_(expected):
        return math.isclose(seconds, expected, rel_tol=1e-9)

    if is_(steps * (alpha + chunk * beta)):
        return
    if is_(steps * (alpha + nbytes // workers * beta)) or is_(steps * (alpha + -(-nbytes // workers) * beta)):
        raise Mistake(
            "rounded", f"{case}: a chunk has {nbytes}/{workers} bytes, not rounded to whole ones: divide with `/`."
        )
    if is_(steps * (alpha + nbytes * beta)):
        raise Mistake("whole", f"{case}: each message carries only one chunk, 1/{workers} of the bytes.")
    if is_(steps / 2 * (alpha + chunk * beta)):
        raise Mistake(
            "half",
            f"{case}: after workers - 1 steps each chunk is summed, but on one worker; as many steps again bring "
            "it to all.",
        )
    if is_(2 * workers * (alpha + chunk * beta)):
        raise Mistake("steps", f"{case}: a chunk has visited everybody after workers - 1 steps, not after workers.")
    if is_(steps * workers * (alpha + chunk * beta)):
        raise Mistake("in turn", f"{case}: all workers send at the same time; a step takes as long as one message.")
    if is_(steps * chunk * beta):
        raise Mistake("no latency", f"{case}: every message costs alpha as well, however short it is.")
    if is_(alpha + steps * chunk * beta):
        raise Mistake("one latency", f"{case}: alpha is paid in every one of the {steps} steps, not once.")
    if is_(steps * alpha):
        raise Mistake("no bytes", f"{case}: a message of s bytes takes s * beta seconds more than alpha.")
    if is_(steps * (alpha + chunk / beta)):
        raise Mistake("rate", f"{case}: beta is seconds per byte, not bytes per second: multiply by it.")
    raise Mistake("value", f"{case} it gives {seconds:.6g} s, not {steps * (alpha + chunk * beta):.6g} s.")


def check_break_even_batch(break_even_batch):
    cases = [(0.25, 1.1, 2, 10), (0.5, 1.0, 2, 6), (1.0, 6.0, 4, 12), (1.0, 0.01, 8, 8), (1e-3, 5e-3, 3, 9)]
    for sample, communication, workers, right in cases:
        batch = break_even_batch(sample, communication, workers)
        case = f"With {sample} s for a sample, {communication} s of communication and {workers} workers"
        _explain_batch(case, batch, sample, communication, workers, right)
    huge = break_even_batch(1e-9, 500.0, 2)
    _check_whole("With 1e-9 s for a sample and 500 s of communication", huge)
    if not math.isclose(huge, 1e12, rel_tol=1e-6):
        raise Mistake("too small", f"With 1e-9 s for a sample and 500 s of communication it is about 1e12, not {huge}.")


def _explain_batch(case, batch, sample, communication, workers, right):
    value = number(batch)
    if value == right:
        return _check_whole(case, batch)
    if value != int(value) or int(value) % workers:
        raise Mistake("not divisible", f"{case}: {batch} samples cannot be shared evenly; the answer is {right}.")
    if math.isclose(value * sample, value * sample / workers + communication):
        raise Mistake("tie", f"{case}: at {batch} samples both are equally fast; the next batch, {right}, is sooner.")
    if value == (communication / sample // workers + 1) * workers:
        raise Mistake(
            "free workers",
            f"{case}: it gives {batch}, as if several workers computed in no time; they still take 1/workers of it.",
        )
    if value * sample < value * sample / workers + communication:
        raise Mistake("too small", f"{case}: at {batch} samples one worker is still sooner; the answer is {right}.")
    raise Mistake("too large", f"{case}: a smaller batch than {batch} pays already; the answer is {right}.")


def _check_whole(case, batch):
    try:
        operator.index(batch)
    except TypeError:
        raise Mistake(
            "float",
            f"{case} it gives {batch}, a {type(batch).__name__}: the number of samples in a batch is a count, an "
            "int. math.floor and int() give one.",
        ) from None


EXERCISES = [
    Exercise("average_gradients", check_average_gradients, returns="an array of the gradients' shape", hints=(
        "How much should one sample count? As much as any other, whatever part it is in.",
        "The gradient of a mean over k samples, times k, is a sum over samples; sums may be added.",
        "sum(size * gradient for ...) / sum(sizes)")),
    Exercise("parallel_gradient", check_parallel_gradient, returns="the list that `launch` gives", seconds=60,
             stand_ins={"minidl.parallel.launch": LAUNCH.stand_in}, hints=(
        "`launch(work, workers)` runs your function `work(group)` in each worker; `group.rank` says which one it is. "
        "Write `work` inside parallel_gradient, so that it sees x, y and w.",
        "The gradient of a mean over k samples, times k, is a sum over samples. The workers' sums may be added, which "
        "`group.all_reduce(array)` does in place.",
        "own = np.array_split(np.arange(len(x)), group.size)[group.rank]; total = mean_gradient(x[own], y[own], w) * "
        "len(own); group.all_reduce(total); return total / len(x). And at the end: return launch(work, workers).")),
    Exercise("ring_all_reduce_seconds", check_ring_all_reduce_seconds, returns="a number of seconds", hints=(
        "The ring has two halves: summing the chunks up, and passing the sums round. Each takes workers - 1 steps.",
        "Every step takes as long as one message of nbytes / workers bytes.",
        "2 * (workers - 1) * (alpha + nbytes / workers * beta)")),
    Exercise("break_even_batch", check_break_even_batch, returns="an int", seconds=5, hints=(
        "Write down both times for a batch of b samples, and the inequality between them. Solve it for b.",
        "b must be larger than communication / (seconds_per_sample * (1 - 1 / workers)).",
        "Call that bound x. The next multiple of workers above it is (floor(x / workers) + 1) * workers.")),
]  # fmt: skip
