"""Answers to lesson 2: `exercise` is right, `exercise__mistake` is wrong in the way that its name says."""

import numpy as np


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
    return None


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
