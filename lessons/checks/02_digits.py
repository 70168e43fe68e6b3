"""The checks of lesson 2."""

import numpy as np

from lessons.exercise import Exercise, Mistake, check_exact, number, numbers


def check_sgd_step(sgd_step):
    generator = np.random.default_rng(0)
    parameter, velocity = generator.normal(size=(3, 2)), np.zeros((3, 2))
    for step, (lr, momentum) in enumerate([(0.2, 0.9), (0.2, 0.9), (0.02, 0.5)], 1):
        gradient = generator.normal(size=(3, 2))
        given = parameter.copy(), gradient.copy(), velocity.copy()
        new_parameter, new_velocity = (numbers(part) for part in sgd_step(*given, lr, momentum))
        if not all(np.array_equal(a, b) for a, b in zip(given, (parameter, gradient, velocity), strict=True)):
            raise Mistake("in place", "It changes the arrays that it was given: `x *= 2` does, `x = 2 * x` does not.")
        where = f"Step {step} (lr = {lr}, momentum = {momentum})"
        _compare_step(where, new_parameter, new_velocity, (parameter, velocity), gradient, lr, momentum)
        parameter, velocity = np.array(new_parameter), np.array(new_velocity)
    other = [generator.normal(size=(4,)) for _ in range(3)]  # a training of its own, begun in the middle
    new_parameter, new_velocity = (numbers(part) for part in sgd_step(*other, 0.1, 0.8))
    _compare_step("For other parameters", new_parameter, new_velocity, (other[0], other[2]), other[1], 0.1, 0.8)


def _compare_step(where, new_parameter, new_velocity, before, gradient, lr, momentum):
    parameter, velocity = before
    right = momentum * velocity + gradient

    def stepped(along):
        return np.allclose(new_parameter, parameter - lr * along)

    if new_parameter.shape != parameter.shape or new_velocity.shape != parameter.shape:
        shapes = f"{new_parameter.shape} and {new_velocity.shape}"
        raise Mistake("shape", f"{where}: arrays of shape {parameter.shape} became ones of shape {shapes}.")
    if np.allclose(new_velocity, right) and stepped(right):
        return
    if np.allclose(new_parameter, right) and np.allclose(new_velocity, parameter - lr * right):
        raise Mistake("swapped", f"{where}: both are right but exchanged; the new parameter comes first.")
    if np.allclose(new_velocity, momentum * velocity + (1 - momentum) * gradient):
        raise Mistake("damped", f"{where}: the gradient goes into the velocity in full, not times (1 - momentum).")
    if np.allclose(new_velocity, momentum * velocity + lr * gradient):
        raise Mistake(
            "lr inside",
            f"{where}: the velocity holds gradients; lr comes in when the parameter moves, "
            "or a later change of lr would not reach the steps remembered.",
        )
    if np.allclose(new_velocity, momentum * velocity - gradient) or np.allclose(
        new_velocity, momentum * velocity - lr * gradient
    ):
        raise Mistake(
            "negative", f"{where}: the velocity adds up gradients; the minus comes in when the parameter moves."
        )
    if not np.allclose(new_velocity, right):
        raise Mistake("velocity", f"{where}: the velocity should be momentum * velocity + gradient.")
    if stepped(-right):
        raise Mistake("uphill", f"{where}: it goes up the gradient, and the loss grows. The step is subtracted.")
    if stepped(gradient):
        raise Mistake("no momentum", f"{where}: the parameter moves along the gradient; it should follow the velocity.")
    if stepped(velocity):
        raise Mistake("late", f"{where}: the parameter follows the old velocity; this gradient comes one step late.")
    if stepped(gradient + momentum * right):
        raise Mistake("nesterov", f"{where}: that is Nesterov's momentum; here the parameter follows the new velocity.")
    if np.allclose(new_parameter, parameter - right):
        raise Mistake("no lr", f"{where}: the step is as long as the velocity; it should be lr times as long.")
    raise Mistake("parameter", f"{where}: the parameter should be parameter - lr * (new velocity).")


def check_cross_entropy_gradient(cross_entropy_gradient):
    generator = np.random.default_rng(0)
    for batch in 1, 8:
        logits, labels = generator.normal(size=(batch, 5)), generator.integers(0, 5, batch)
        gradient = _call(cross_entropy_gradient, logits, labels)
        _explain_gradient(gradient, logits, labels)
        check_exact("The gradient", gradient, _gradient(logits, labels))
    with np.errstate(all="ignore"):
        _check_large_logits(lambda *rows: _call(cross_entropy_gradient, np.array(rows), np.zeros(len(rows), int)))


def _check_large_logits(gradient_of):
    """gradient_of(*rows): of a batch of these logits, each with label 0."""
    for large in 1000.0, 100_000.0:
        gradient = gradient_of([0.0, large, 0.0])
        if np.isnan(gradient).any():
            raise Mistake(
                "overflow",
                f"With a logit of {large:g} beside zeros the result is not a number: an exp is infinite. Subtract the "
                "largest logit of each row first; softmax does not change by that.",
            )
        if not np.allclose(gradient, [[-1, 1, 0]]):
            raise Mistake(
                "value", f"For logits [0, {large:g}, 0] and label 0 the gradient is [-1, 1, 0]; yours is {gradient[0]}."
            )
    for rows in [1001.0, 1000.0], [-1000.0, -1001.0]:
        gradient = gradient_of(rows)
        if np.isnan(gradient).any():
            raise Mistake(
                "underflow",
                f"With the logits {rows} the result is not a number: exp of each is 0. Subtract the largest logit of "
                "each row first; then the largest exp is 1.",
            )
        if np.allclose(gradient, [[-0.5, 0.5]]):
            raise Mistake(
                "clipped",
                f"It cannot tell the logits {rows} apart: clipped at a limit, they become equal. Softmax depends on "
                "the differences between logits: subtract the largest of each row, and nothing need be clipped.",
            )
        if not np.allclose(gradient, _gradient(np.array([rows]), [0])):
            raise Mistake("value", f"For the logits {rows} and label 0 it gives {gradient[0]}.")
    rows = [0.0, 1.0], [-1000.0, -1001.0]
    gradient = gradient_of(*rows)
    if not np.allclose(gradient, _gradient(np.array(rows), [0, 0])):
        raise Mistake(
            "batch maximum",
            "Rows with logits near -1000 beside others near 0 come out wrong: subtract the "
            "largest logit of each row, not that of the whole batch.",
        )


def _call(answer, logits, labels):
    kept = logits.copy()
    gradient = numbers(answer(logits, labels))
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
    expected, p, (batch, classes) = _gradient(logits, labels), _probabilities(logits), logits.shape

    def near(*forms):
        return any(np.allclose(gradient, form, atol=1e-6) for form in forms)

    if near(expected):
        return
    if near(expected * batch):
        raise Mistake(
            "sum",
            f"It is {batch} times too large for a batch of {batch}: the loss is the mean over the batch, so "
            "divide by its size.",
        )
    if near(expected / classes):
        raise Mistake("classes", f"It is {classes} times too small: divide by the number of rows, not of all elements.")
    if near(-expected, -expected * batch):
        raise Mistake("sign", "The sign is wrong: it is p - y, negative at the right class, so that a step raises it.")
    if near(p, p / batch):
        raise Mistake("no truth", "It is p; subtract 1 at the right class of each row.")
    in_all_rows = p - np.isin(np.arange(classes), labels)
    if near(in_all_rows, in_all_rows / batch):
        raise Mistake(
            "all rows",
            "It takes 1 away from a column as a whole: `p[:, labels]` is not one element of each row, "
            "`p[np.arange(len(p)), labels]` is.",
        )
    e = np.exp(logits)
    for sums in e.sum(axis=0), e.sum():
        wrong = e / sums - np.eye(classes)[labels]
        if near(wrong, wrong / batch):
            raise Mistake("axis", "Its probabilities must add up to 1 in each row, and do not: sum over axis=1.")
    if near(p - labels[:, None], (p - labels[:, None]) / batch):
        raise Mistake(
            "number of the class",
            "It subtracts the number of the class; the truth y is 1 at the right class and 0 elsewhere.",
        )
    raise Mistake(
        "value",
        f"For a batch of {batch} it differs from (p - y) / {batch} by up to {abs(gradient - expected).max():.3g}.",
    )


def check_accuracy(accuracy):
    logits = np.array([[1, 9, 0], [20, 10, 0], [0, 2, 1], [-3, -2, -1], [5, 0, 0], [3, 2, 9]]) / 10
    for labels in [1, 0, 1, 2, 1, 0], [0, 1, 2, 0, 1, 0], [1, 0, 1, 2, 0, 2], [1, 0], [1, 2]:
        right = int(np.sum(np.array([1, 0, 1, 2, 0, 2])[: len(labels)] == labels))
        rows = len(labels)
        try:
            result = accuracy(logits[:rows], np.array(labels))
        except (ValueError, IndexError):
            raise Mistake(
                "axis", f"With {rows} rows and 3 classes the shapes do not fit: take the largest of each row."
            ) from None
        result = number(result)
        if np.isclose(result, right / rows):
            continue
        if np.isclose(result, right):
            raise Mistake("count", f"It returns {result}, the number of right answers; divide by the number of rows.")
        if np.isclose(result, 100 * right / rows):
            raise Mistake("percent", f"It returns {result}, a percentage; a share lies between 0 and 1.")
        if np.isclose(result, 1 - right / rows):
            raise Mistake("error", f"It returns {result}, the share of wrong answers; wanted is that of right ones.")
        if np.isclose(result, right / 3):
            raise Mistake("classes", f"It returns {result}: it divides by the number of classes, not of rows.")
        if result == np.round(right / rows) or (result == right // rows and result.dtype.kind in "bui"):
            raise Mistake("rounded", f"It returns {result}: a share is no whole number, so divide with `/`.")
        raise Mistake("value", f"{right} of {rows} rows are right, which is {right / rows}; it returns {result}.")


EXERCISES = [
    Exercise("sgd_step", check_sgd_step, returns="(new parameter, new velocity)", own=("minidl.optim.Optimizer.step",),
             hints=(
        "The two lines are in the lesson, under \"One step\".",
        "First the new velocity, from the old one and the gradient; then the new parameter, from the new velocity.",
        "new = momentum * velocity + gradient; return parameter - lr * new, new.")),
    Exercise("cross_entropy_gradient", check_cross_entropy_gradient, returns="an array of the shape of logits", hints=(
        "Softmax of each row first; then take 1 away at the right class of each row; then think of the mean.",
        "logits.max(axis=1, keepdims=True) is the largest logit of each row, in a shape that broadcasts.",
        "p[np.arange(len(labels)), labels] -= 1 changes one element in each row; divide by len(labels) at the end.")),
    Exercise("accuracy", check_accuracy, returns="a number between 0 and 1", own=("minidl.metrics.Accuracy.update",),
             hints=(
        "argmax gives the place of the largest element. Of each row: axis=1.",
        "Comparing two arrays with == gives True and False, which count as 1 and 0.",
        "(logits.argmax(axis=1) == labels).mean()")),
]  # fmt: skip
