"""Answers to lesson 3: `exercise` is right, `exercise__mistake` is wrong in the way that its name says."""

import math

import numpy as np


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


def average_gradients__in_place(gradients, sizes):
    total = gradients[0]
    total *= sizes[0]
    for size, gradient in zip(sizes[1:], gradients[1:], strict=True):
        total += size * gradient
    return total / sum(sizes)


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
