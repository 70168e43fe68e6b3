"""The checks of lesson 3."""

import math

import numpy as np

from lessons.exercise import Exercise, Mistake


def check_average_gradients(average_gradients):
    generator = np.random.default_rng(0)
    for sizes in [8, 8], [15, 14], [3, 5, 0, 1], [7]:
        gradients = [generator.normal(size=(2, 3)) for _ in sizes]
        kept = [g.copy() for g in gradients]
        result = np.asarray(average_gradients(gradients, list(sizes)))
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
    raise Mistake("value", f"{case}: it is not the gradient of the whole batch.")


def check_ring_all_reduce_seconds(ring_all_reduce_seconds):
    if ring_all_reduce_seconds(1000, 1, 1e-6, 1e-9) != 0:
        raise Mistake("alone", "One worker has nobody to send to: 0 seconds.")
    for nbytes, workers, alpha, beta in (1_000_000, 2, 5e-6, 1e-9), (4096, 8, 2e-5, 1e-10), (10**9, 64, 1e-6, 4e-11):
        seconds = ring_all_reduce_seconds(nbytes, workers, alpha, beta)
        steps, chunk = 2 * (workers - 1), nbytes / workers
        case = f"For {nbytes} bytes on {workers} workers"

        def is_(expected, seconds=seconds):
            return math.isclose(seconds, expected, rel_tol=1e-9)

        if is_(steps * (alpha + chunk * beta)):
            continue
        if is_(steps * (alpha + nbytes * beta)):
            raise Mistake("whole", f"{case}: each message carries only one chunk, 1/{workers} of the bytes.")
        if is_(steps / 2 * (alpha + chunk * beta)):
            raise Mistake("half", f"{case}: after workers - 1 steps each chunk is summed, but on one worker; as many "
                                  "steps again bring it to all.")  # fmt: skip
        if is_(2 * workers * (alpha + chunk * beta)):
            raise Mistake("steps", f"{case}: a chunk has visited everybody after workers - 1 steps, not after workers.")
        if is_(steps * chunk * beta):
            raise Mistake("no latency", f"{case}: every message costs alpha as well, however short it is.")
        if is_(alpha + steps * chunk * beta):
            raise Mistake("one latency", f"{case}: alpha is paid in every one of the {steps} steps, not once.")
        raise Mistake("value", f"{case} it gives {seconds:.3g} s, not {steps * (alpha + chunk * beta):.3g} s.")


def check_break_even_batch(break_even_batch):
    cases = [(0.25, 1.1, 2, 10), (0.5, 1.0, 2, 6), (1.0, 6.0, 4, 12), (1.0, 0.01, 8, 8), (1e-3, 5e-3, 3, 9)]
    for sample, communication, workers, right in cases:
        batch = break_even_batch(sample, communication, workers)
        case = f"With {sample} s for a sample, {communication} s of communication and {workers} workers"
        if batch == right:
            continue
        if batch != int(batch) or int(batch) % workers:
            raise Mistake("not divisible", f"{case}: {batch} samples cannot be shared evenly; the answer is {right}.")
        if math.isclose(batch * sample, batch * sample / workers + communication):
            raise Mistake(
                "tie", f"{case}: at {batch} samples both are equally fast; the next batch, {right}, is sooner."
            )
        if batch == (communication / sample // workers + 1) * workers:
            raise Mistake("free workers", f"{case}: it gives {batch}, as if several workers computed in no time; they "
                                          "still take 1/workers of it.")  # fmt: skip
        if batch * sample < batch * sample / workers + communication:
            raise Mistake("too small", f"{case}: at {batch} samples one worker is still sooner; the answer is {right}.")
        raise Mistake("too large", f"{case}: a smaller batch than {batch} pays already; the answer is {right}.")
    huge = break_even_batch(1e-9, 500.0, 2)
    if not math.isclose(huge, 1e12, rel_tol=1e-6):
        raise Mistake("too small", f"With 1e-9 s for a sample and 500 s of communication it is about 1e12, not {huge}.")


EXERCISES = [
    Exercise("average_gradients", check_average_gradients, hints=(
        "How much should one sample count? As much as any other, whatever part it is in.",
        "The gradient of a mean over k samples, times k, is a sum over samples; sums may be added.",
        "sum(size * gradient for ...) / sum(sizes)")),
    Exercise("ring_all_reduce_seconds", check_ring_all_reduce_seconds, hints=(
        "The ring has two halves: summing the chunks up, and passing the sums round. Each takes workers - 1 steps.",
        "Every step takes as long as one message of nbytes / workers bytes.",
        "2 * (workers - 1) * (alpha + nbytes / workers * beta)")),
    Exercise("break_even_batch", check_break_even_batch, seconds=5, hints=(
        "Write down both times for a batch of b samples, and the inequality between them. Solve it for b.",
        "b must be larger than communication / (seconds_per_sample * (1 - 1 / workers)).",
        "Call that bound x. The next multiple of workers above it is (floor(x / workers) + 1) * workers.")),
]  # fmt: skip
