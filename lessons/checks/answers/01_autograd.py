"""Answers to lesson 1: `exercise` is right, `exercise__mistake` is wrong in the way that its name says.

What comes after a second `__` tells two ways to the same mistake apart.
"""

import sys
import time

import numpy as np

import minidl
from minidl.ops.shape import unbroadcast as minidl_unbroadcast


def divide(a, b):
    return a / b, (1 / b, -a / b**2)


def divide__swapped(a, b):
    return a / b, (-a / b**2, 1 / b)


def divide__sign(a, b):
    return a / b, (1 / b, a / b**2)


def divide__square(a, b):
    return a / b, (1 / b, -a / b)


def divide__form(a, b):
    return a / b


def divide__value(a, b):
    return a // b, (1 / b, -a / b**2)


def divide__lost_a(a, b):
    return a / b, (1 / b, -1 / b**2)


def divide__slope_in_a(a, b):
    return a / b, (b, -a / b**2)


def divide__slope_in_b(a, b):
    return a / b, (1 / b, a)


def divide__inexact(a, b, h=1e-3):
    """By differences of five points, the best that a learner might try."""

    def slope(f):
        return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)

    return a / b, (slope(lambda d: (a + d) / b), slope(lambda d: a / (b + d)))


def divide__borrowed(a, b):
    a, b = (minidl.tensor(x, requires_grad=True) for x in (a, b))
    (a / b).backward()
    return (a / b).item(), (a.grad.item(), b.grad.item())


def backward(result):
    users, values = {result: 0}, [result]
    for value in values:
        for parent in value.parents:
            if parent not in users:
                users[parent] = 0
                values.append(parent)
            users[parent] += 1
    result.grad = 1.0
    ready = [result]
    while ready:
        value = ready.pop()
        for parent, slope in zip(value.parents, value.slopes, strict=True):
            parent.grad += value.grad * slope
            users[parent] -= 1
            if users[parent] == 0:
                ready.append(parent)


def backward__eager(result):
    result.grad = 1.0
    todo, seen = [result], {result}
    while todo:
        value = todo.pop()
        for parent, slope in zip(value.parents, value.slopes, strict=True):
            parent.grad += value.grad * slope
            if parent not in seen:
                seen.add(parent)
                todo.append(parent)


def backward__shallow(result):
    for parent, slope in zip(result.parents, result.slopes, strict=True):
        parent.grad += slope


def backward__recursion(result):
    order, seen = [], set()

    def visit(value):
        if value not in seen:
            seen.add(value)
            for parent in value.parents:
                visit(parent)
            order.append(value)

    visit(result)
    result.grad = 1.0
    for value in reversed(order):
        for parent, slope in zip(value.parents, value.slopes, strict=True):
            parent.grad += value.grad * slope


def backward__recursion_limit(result):
    sys.setrecursionlimit(10**6)
    backward__recursion(result)


def _in_order(result, receive):
    """Topological, with `receive(parent, contribution)` in place of the sum."""
    users, values = {result: 0}, [result]
    for value in values:
        for parent in value.parents:
            if parent not in users:
                users[parent] = 0
                values.append(parent)
            users[parent] += 1
    ready = [result]
    while ready:
        value = ready.pop()
        for parent, slope in zip(value.parents, value.slopes, strict=True):
            receive(parent, value.grad * slope)
            users[parent] -= 1
            if users[parent] == 0:
                ready.append(parent)


def backward__overwrites(result):
    def receive(parent, contribution):
        parent.grad = contribution

    result.grad = 1.0
    _in_order(result, receive)


def backward__seed(result):
    def receive(parent, contribution):
        parent.grad += contribution

    _in_order(result, receive)


def backward__form(result):
    backward__seed(result)
    for parent in result.parents:
        parent.grad = f"{parent.grad}"


def backward__resends(result):
    result.grad = 1.0
    todo = [result]
    while todo:
        value = todo.pop()
        for parent, slope in zip(value.parents, value.slopes, strict=True):
            parent.grad += value.grad * slope
            todo.append(parent)


def backward__over_budget(result):
    todo = [(result, 1.0)]
    while todo:
        value, contribution = todo.pop()
        value.grad += contribution
        todo += [(parent, contribution * slope) for parent, slope in zip(value.parents, value.slopes, strict=True)]


def backward__time(result):
    while result.data is not None:
        time.sleep(0)


def unbroadcast(grad, shape):
    added = grad.ndim - len(shape)
    grad = grad.sum(axis=tuple(range(added)))
    stretched = tuple(d for d, n in enumerate(shape) if n == 1)
    return grad.sum(axis=stretched, keepdims=True)


def unbroadcast__stretched(grad, shape):
    return grad.sum(axis=tuple(range(grad.ndim - len(shape))))


def unbroadcast__lost_dimension(grad, shape):
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    return grad.sum(axis=tuple(d for d, n in enumerate(shape) if n == 1))


def unbroadcast__kept_dimension(grad, shape):
    added = grad.ndim - len(shape)
    dims = (*range(added), *(d + added for d, n in enumerate(shape) if n == 1))
    return grad.sum(axis=dims, keepdims=True)


def unbroadcast__mean(grad, shape):
    added = grad.ndim - len(shape)
    grad = grad.mean(axis=tuple(range(added))) if added else grad
    stretched = tuple(d for d, n in enumerate(shape) if n == 1)
    return grad.mean(axis=stretched, keepdims=True) if stretched else grad


def unbroadcast__form(grad, shape):
    return "sum"


def unbroadcast__first(grad, shape):
    return np.ascontiguousarray(grad[(0,) * (grad.ndim - len(shape))][tuple(slice(n) for n in shape)])


def unbroadcast__one_sum(grad, shape):
    return grad.sum()


def unbroadcast__in_place(grad, shape):
    grad *= 2
    return unbroadcast__mean(grad, shape)


def unbroadcast__shape(grad, shape):
    return grad.T


def unbroadcast__value(grad, shape):
    added = grad.ndim - len(shape)
    return grad.max(axis=tuple(range(added))).max(axis=tuple(d for d, n in enumerate(shape) if n == 1), keepdims=True)


def unbroadcast__error(grad, shape):
    return grad.reshape(shape)


def unbroadcast__borrowed(grad, shape):
    return minidl_unbroadcast(np, grad, shape)


def unbroadcast__memory(grad, shape):
    return np.ones(10**9).sum() * grad
