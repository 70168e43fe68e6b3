"""The checks of lesson 2."""

import numpy as np

from lessons.exercise import Exercise, Mistake


def check_sgd_step(sgd_step):
    generator = np.random.default_rng(0)
    parameter, velocity = generator.normal(size=(3, 2)), np.zeros((3, 2))
    expected_parameter, expected_velocity = parameter, velocity
    for step, (lr, momentum) in enumerate([(0.2, 0.9), (0.2, 0.9), (0.02, 0.5)], 1):
        gradient = generator.normal(size=(3, 2))
        given = parameter.copy(), gradient.copy(), velocity.copy()
        before = expected_parameter, expected_velocity
        expected_velocity = momentum * expected_velocity + gradient
        expected_parameter = expected_parameter - lr * expected_velocity
        try:
            new_parameter, new_velocity = sgd_step(*given, lr, momentum)
        except (TypeError, ValueError):
            raise Mistake("form", "sgd_step() must return (new parameter, new velocity).") from None
        if not all(np.array_equal(a, b) for a, b in zip(given, (parameter, gradient, velocity), strict=True)):
            raise Mistake("in place", "It changes the arrays that it was given: `x *= 2` does, `x = 2 * x` does not.")
        where = f"Step {step} (lr = {lr}, momentum = {momentum})"
        _compare_step(where, new_parameter, new_velocity, before, gradient, lr, momentum)
        parameter, velocity = np.array(new_parameter), np.array(new_velocity)


def _compare_step(where, new_parameter, new_velocity, before, gradient, lr, momentum):
    parameter, velocity = before
    right = momentum * velocity + gradient
    if np.allclose(new_velocity, right) and np.allclose(new_parameter, parameter - lr * right):
        return
    if np.allclose(new_velocity, momentum * velocity + (1 - momentum) * gradient):
        raise Mistake("damped", f"{where}: the gradient goes into the velocity in full, not times (1 - momentum).")
    if np.allclose(new_velocity, momentum * velocity + lr * gradient) and lr != 1:
        raise Mistake(
            "lr inside",
            f"{where}: the velocity holds gradients; lr comes in when the parameter moves, "
            "or a later change of lr would not reach the steps remembered.",
        )
    if not np.allclose(new_velocity, right):
        raise Mistake("velocity", f"{where}: the velocity should be momentum * velocity + gradient.")
    if np.allclose(new_parameter, parameter + lr * right):
        raise Mistake("uphill", f"{where}: it goes up the gradient, and the loss grows. The step is subtracted.")
    if np.allclose(new_parameter, parameter - lr * gradient):
        raise Mistake("no momentum", f"{where}: the parameter moves along the gradient; it should follow the velocity.")
    if np.allclose(new_parameter, parameter - lr * velocity):
        raise Mistake("late", f"{where}: the parameter follows the old velocity; this gradient comes one step late.")
    raise Mistake("parameter", f"{where}: the parameter should be parameter - lr * (new velocity).")


def check_cross_entropy_gradient(cross_entropy_gradient):
    generator = np.random.default_rng(0)
    for batch in 1, 8:
        logits, labels = generator.normal(size=(batch, 5)), generator.integers(0, 5, batch)
        gradient = _call(cross_entropy_gradient, logits, labels)
        _explain_gradient(gradient, logits, labels)
    with np.errstate(all="ignore"):
        gradient = _call(cross_entropy_gradient, np.array([[1000.0, 0.0, 0.0]]), np.array([1]))
    if not np.isfinite(gradient).all():
        raise Mistake(
            "overflow",
            "With a logit of 1000 the result is not a number: exp(1000) is infinite. Subtract the "
            "largest logit of each row first; softmax does not change by that.",
        )
    if not np.allclose(gradient, [[1, -1, 0]]):
        raise Mistake(
            "value", f"For logits [1000, 0, 0] and label 1 the gradient is [1, -1, 0]; yours is {gradient[0]}."
        )
    shifted = np.array([[0.0, 1.0], [-1000.0, -1001.0]])
    with np.errstate(all="ignore"):
        gradient = _call(cross_entropy_gradient, shifted, np.array([0, 0]))
    expected = _gradient(shifted, np.array([0, 0]))
    if not np.allclose(gradient, expected):
        raise Mistake(
            "batch maximum",
            "Rows with logits near -1000 beside others near 0 come out wrong: subtract the "
            "largest logit of each row, not that of the whole batch.",
        )


def _call(answer, logits, labels):
    kept = logits.copy()
    gradient = np.asarray(answer(logits, labels))
    if gradient.shape != logits.shape:
        raise Mistake("shape", f"For logits of shape {logits.shape} the result has shape {gradient.shape}.")
    if not np.array_equal(kept, logits):
        raise Mistake("in place", "It changes the logits that it was given.")
    return gradient


def _probabilities(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _gradient(logits, labels):
    return (_probabilities(logits) - np.eye(logits.shape[1])[labels]) / len(logits)


def _explain_gradient(gradient, logits, labels):
    expected, p, batch = _gradient(logits, labels), _probabilities(logits), len(logits)
    if np.allclose(gradient, expected):
        return
    if np.allclose(gradient, expected * batch):
        raise Mistake(
            "sum",
            f"It is {batch} times too large for a batch of {batch}: the loss is the mean over the batch, so "
            "divide by its size.",
        )
    if np.allclose(gradient, -expected) or np.allclose(gradient, -expected * batch):
        raise Mistake("sign", "The sign is wrong: it is p - y, negative at the right class, so that a step raises it.")
    if np.allclose(gradient, p) or np.allclose(gradient, p / batch):
        raise Mistake("no truth", "It is p; subtract 1 at the right class of each row.")
    raise Mistake(
        "value",
        f"For a batch of {batch} it differs from (p - y) / {batch} by up to {abs(gradient - expected).max():.3g}.",
    )


def check_accuracy(accuracy):
    logits = np.array([[0.1, 0.9, 0.0], [2.0, 1.0, 0.0], [0.0, 0.2, 0.1], [-3.0, -2.0, -1.0], [5.0, 0.0, 0.0]])
    for labels, right in ([1, 0, 1, 2, 1], 4), ([0, 1, 2, 0, 1], 0), ([1, 0, 1, 2, 0], 5):
        try:
            result = accuracy(logits, np.array(labels))
        except (ValueError, IndexError):
            raise Mistake(
                "axis", "With 5 rows and 3 classes the shapes do not fit: take the largest of each row."
            ) from None
        if np.ndim(result):
            raise Mistake("form", f"It returns something of shape {np.shape(result)}; one number is wanted.")
        if np.isclose(result, right / 5):
            continue
        if np.isclose(result, right):
            raise Mistake("count", f"It returns {result}, the number of right answers; divide by the number of rows.")
        if np.isclose(result, 20 * right):
            raise Mistake("percent", f"It returns {result}, a percentage; a share lies between 0 and 1.")
        if np.isclose(result, 1 - right / 5):
            raise Mistake("error", f"It returns {result}, the share of wrong answers; wanted is that of right ones.")
        raise Mistake("value", f"{right} of 5 rows are right, which is {right / 5}; it returns {result}.")


EXERCISES = [
    Exercise("sgd_step", check_sgd_step, hints=(
        "The two lines are in the lesson, under \"One step\".",
        "First the new velocity, from the old one and the gradient; then the new parameter, from the new velocity.",
        "new = momentum * velocity + gradient; return parameter - lr * new, new.")),
    Exercise("cross_entropy_gradient", check_cross_entropy_gradient, hints=(
        "Softmax of each row first; then take 1 away at the right class of each row; then think of the mean.",
        "logits.max(axis=1, keepdims=True) is the largest logit of each row, in a shape that broadcasts.",
        "p[np.arange(len(labels)), labels] -= 1 changes one element in each row; divide by len(labels) at the end.")),
    Exercise("accuracy", check_accuracy, hints=(
        "argmax gives the place of the largest element. Of each row: axis=1.",
        "Comparing two arrays with == gives True and False, which count as 1 and 0.",
        "(logits.argmax(axis=1) == labels).mean()")),
]  # fmt: skip
