"""Answers to lesson 2: `exercise` is right, `exercise__mistake` is wrong in the way that its name says.

What comes after a second `__` tells two ways to the same mistake apart.
"""

import numpy as np

import minidl
from minidl import metrics, nn, optim


def sgd_step(parameter, gradient, velocity, lr, momentum):
    velocity = momentum * velocity + gradient
    return parameter - lr * velocity, velocity


def sgd_step__damped(parameter, gradient, velocity, lr, momentum):
    velocity = momentum * velocity + (1 - momentum) * gradient
    return parameter - lr * velocity, velocity


def sgd_step__lr_inside(parameter, gradient, velocity, lr, momentum):
    velocity = momentum * velocity + lr * gradient
    return parameter - velocity, velocity


def sgd_step__uphill(parameter, gradient, velocity, lr, momentum):
    velocity = momentum * velocity + gradient
    return parameter + lr * velocity, velocity


def sgd_step__no_momentum(parameter, gradient, velocity, lr, momentum):
    return parameter - lr * gradient, momentum * velocity + gradient


def sgd_step__late(parameter, gradient, velocity, lr, momentum):
    return parameter - lr * velocity, momentum * velocity + gradient


def sgd_step__velocity(parameter, gradient, velocity, lr, momentum):
    return parameter - lr * gradient, gradient


def sgd_step__in_place(parameter, gradient, velocity, lr, momentum):
    velocity *= momentum
    velocity += gradient
    parameter -= lr * velocity
    return parameter, velocity


def sgd_step__form(parameter, gradient, velocity, lr, momentum):
    return parameter - lr * (momentum * velocity + gradient)


def sgd_step__shape(parameter, gradient, velocity, lr, momentum):
    velocity = momentum * velocity + gradient
    return parameter.mean() - lr * velocity.mean(), velocity.mean()


def sgd_step__swapped(parameter, gradient, velocity, lr, momentum):
    velocity = momentum * velocity + gradient
    return velocity, parameter - lr * velocity


def sgd_step__negative(parameter, gradient, velocity, lr, momentum):
    velocity = momentum * velocity - lr * gradient
    return parameter + velocity, velocity


def sgd_step__nesterov(parameter, gradient, velocity, lr, momentum):
    velocity = momentum * velocity + gradient
    return parameter - lr * (gradient + momentum * velocity), velocity


def sgd_step__no_lr(parameter, gradient, velocity, lr, momentum):
    velocity = momentum * velocity + gradient
    return parameter - velocity, velocity


def sgd_step__parameter(parameter, gradient, velocity, lr, momentum):
    velocity = momentum * velocity + gradient
    return parameter - 0.1 * velocity, velocity


def sgd_step__borrowed(parameter, gradient, velocity, lr, momentum):
    whole = nn.Parameter(minidl.tensor(parameter))
    whole.grad = minidl.tensor(gradient)
    optim.SGD([whole], lr=lr, momentum=momentum).step()
    return whole.detach().numpy(), momentum * velocity + gradient


def _softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _truth(logits, labels):
    return np.eye(logits.shape[1])[labels]


def cross_entropy_gradient(logits, labels):
    gradient = _softmax(logits)
    gradient[np.arange(len(labels)), labels] -= 1
    return gradient / len(labels)


def cross_entropy_gradient__sum(logits, labels):
    return _softmax(logits) - _truth(logits, labels)


def cross_entropy_gradient__sign(logits, labels):
    return (_truth(logits, labels) - _softmax(logits)) / len(labels)


def cross_entropy_gradient__no_truth(logits, labels):
    return _softmax(logits) / len(labels)


def cross_entropy_gradient__overflow(logits, labels):
    e = np.exp(logits)
    return (e / e.sum(axis=1, keepdims=True) - _truth(logits, labels)) / len(labels)


def cross_entropy_gradient__form(logits, labels):
    return ["p", "y"]


def cross_entropy_gradient__in_place(logits, labels):
    logits -= logits.max(axis=1, keepdims=True)
    return (_softmax(logits) - _truth(logits, labels)) / len(labels)


def cross_entropy_gradient__clipped(logits, labels):
    e = np.exp(np.clip(logits, -500, 500))
    return (e / e.sum(axis=1, keepdims=True) - _truth(logits, labels)) / len(labels)


def cross_entropy_gradient__underflow(logits, labels):
    e = np.exp(logits - np.maximum(0, logits.max(axis=1, keepdims=True)))
    return (e / e.sum(axis=1, keepdims=True) - _truth(logits, labels)) / len(labels)


def cross_entropy_gradient__inexact(logits, labels, h=1e-5):
    """By finite differences of the loss."""

    def loss(logits):
        return -np.log(_softmax(logits)[np.arange(len(labels)), labels]).mean()

    gradient = np.empty_like(logits)
    for index in np.ndindex(logits.shape):
        shift = np.zeros_like(logits)
        shift[index] = h
        gradient[index] = (loss(logits + shift) - loss(logits - shift)) / (2 * h)
    return gradient


def cross_entropy_gradient__borrowed(logits, labels):
    leaf = minidl.tensor(logits, requires_grad=True)
    nn.CrossEntropyLoss()(leaf, minidl.tensor(labels)).backward()
    return leaf.grad.numpy()


def cross_entropy_gradient__classes(logits, labels):
    return (_softmax(logits) - _truth(logits, labels)) / logits.size


def cross_entropy_gradient__all_rows(logits, labels):
    gradient = _softmax(logits)
    gradient[:, labels] -= 1
    return gradient / len(labels)


def cross_entropy_gradient__axis(logits, labels):
    return (_softmax(logits.T).T - _truth(logits, labels)) / len(labels)


def cross_entropy_gradient__axis__whole_batch(logits, labels):
    e = np.exp(logits - logits.max())
    return (e / e.sum() - _truth(logits, labels)) / len(labels)


def cross_entropy_gradient__number_of_the_class(logits, labels):
    return (_softmax(logits) - labels[:, None]) / len(labels)


def cross_entropy_gradient__value(logits, labels):
    return (logits / logits.sum(axis=1, keepdims=True) - _truth(logits, labels)) / len(labels)


def cross_entropy_gradient__batch_maximum(logits, labels):
    e = np.exp(logits - logits.max())
    return (e / e.sum(axis=1, keepdims=True) - _truth(logits, labels)) / len(labels)


def cross_entropy_gradient__shape(logits, labels):
    return -np.log(_softmax(logits)[np.arange(len(labels)), labels])


def accuracy(logits, labels):
    return (logits.argmax(axis=1) == labels).mean()


def accuracy__count(logits, labels):
    return (logits.argmax(axis=1) == labels).sum()


def accuracy__percent(logits, labels):
    return 100 * (logits.argmax(axis=1) == labels).mean()


def accuracy__error(logits, labels):
    return (logits.argmax(axis=1) != labels).mean()


def accuracy__form(logits, labels):
    return logits.argmax(axis=1) == labels


def accuracy__axis(logits, labels):
    return (logits.argmax(axis=0) == labels).mean()


def accuracy__rounded(logits, labels):
    return (logits.argmax(axis=1) == labels).sum() // len(labels)


def accuracy__classes(logits, labels):
    return (logits.argmax(axis=1) == labels).sum() / logits.shape[1]


def accuracy__value(logits, labels):
    return (logits.argmin(axis=1) == labels).mean()


def accuracy__borrowed(logits, labels):
    return metrics.accuracy(logits, labels)
