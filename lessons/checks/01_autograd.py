"""The checks of lesson 1."""

import numpy as np

from lessons.exercise import Counter, Exercise, Mistake, check_exact, number, numbers


def check_divide(divide):
    for a, b in (3.0, 2.0), (-1.0, 4.0), (0.5, -0.25), (7.1, 0.3):
        value, (slope_a, slope_b) = divide(a, b)
        value, slope_a, slope_b = number(value), number(slope_a), number(slope_b)
        if not np.isclose(value, a / b):
            raise Mistake("value", f"divide({a}, {b}) has the value {value}, but {a} / {b} is {a / b}.")
        _explain_slopes(f"At a = {a}, b = {b}", slope_a, slope_b, a, b)
        check_exact("The slope in a", slope_a, 1 / b)
        check_exact("The slope in b", slope_b, -a / b**2)


def _explain_slopes(given, slope_a, slope_b, a, b):
    def near(slope, expected):
        return np.isclose(slope, expected, rtol=1e-3)

    true_a, true_b = 1 / b, -a / b**2
    if near(slope_a, true_b) and near(slope_b, true_a):
        raise Mistake("swapped", f"{given}: the two slopes are right but exchanged; the slope in a comes first.")
    if not near(slope_a, true_a):
        raise Mistake("slope in a", f"{given}: the slope in a is {slope_a}, finite differences say {true_a:.6g}.")
    if near(slope_b, true_b):
        return
    if near(slope_b, -true_b):
        raise Mistake("sign", f"{given}: the slope in b has the wrong sign; a larger b makes 1/b smaller.")
    if near(slope_b, true_b * b):
        raise Mistake("square", f"{given}: the slope in b lacks one division by b: 1/b has the derivative -1/b².")
    if near(slope_b, true_b / a):
        raise Mistake("lost a", f"{given}: the slope in b is that of 1/b; what is divided is a, so it is a times that.")
    raise Mistake("slope in b", f"{given}: the slope in b is {slope_b}, finite differences say {true_b:.6g}.")


class Graph:
    """Makes values, and counts how often their slopes are read."""

    def __init__(self):
        self.values = []
        self.reads = Counter(0, "")

    def value(self, data, parents=(), slopes=()):
        value = Value(data, parents, slopes, self.reads)
        self.values.append(value)
        return value

    def add(self, a, b):
        return self.value(a.data + b.data, (a, b), (1.0, 1.0))

    def multiply(self, a, b):
        return self.value(a.data * b.data, (a, b), (b.data, a.data))

    def run(self, backward, result):
        """`backward(result)` within one reading for each link."""
        links = sum(len(value.parents) for value in self.values)
        self.reads.budget = links
        self.reads.message = (
            f"It reads slopes more than {links} times in a graph of {len(self.values)} values with {links} links: "
            "it follows every path, or reads the same slopes again and again. Visit each value once, when all its "
            "users have contributed."
        )
        backward(result)
        for value in self.values:
            if not isinstance(value.grad, (int, float)):
                value.grad = _as_number(value.grad)


def _as_number(grad):
    try:
        return number(grad)
    except TypeError:
        raise Mistake("form", f"It leaves a gradient that is no number but of type {type(grad).__name__}.") from None


class Value:
    """What the learner's backward walks over."""

    def __init__(self, data, parents, slopes, reads):
        self.data, self.grad, self.parents = data, 0.0, parents
        self._slopes, self._reads = slopes, reads

    @property
    def slopes(self):
        if self.parents:
            self._reads.add()
        return self._slopes


def check_backward(backward):
    _check_single_steps(backward)
    for swapped in False, True:
        graph = Graph()
        x = graph.value(3.0)
        y = graph.multiply(x, x)
        square = graph.multiply(y, y)
        graph.run(backward, graph.add(y, square) if swapped else graph.add(square, y))
        term = "y + y*y" if swapped else "y*y + y"
        seen = f"With y = x*x and z = {term} at x = 3, dz/dx is 114; yours is {x.grad:g}"
        if x.grad == 0:
            raise Mistake("shallow", f"{seen}: nothing has arrived there. Parents have parents, too.")
        if x.grad > 114:
            raise Mistake("resends", f"{seen}: a value sent its whole gradient on more than once.")
        if x.grad != 114:
            raise Mistake("eager", f"{seen}: y sent its gradient on before both of its users had contributed.")
    _check_random(backward)
    graph = Graph()
    x = y = graph.value(1.0)
    for _ in range(30):
        y = graph.add(y, y)
    graph.run(backward, y)
    if x.grad != 2**30:
        raise Mistake("value", f"After 30 times y = y + y, dy/dx is 2**30 = {2**30}; yours is {x.grad:g}.")
    _check_chain(backward)


def _check_single_steps(backward):
    graph = Graph()
    a, b = graph.value(2.0), graph.value(5.0)
    graph.run(backward, graph.multiply(a, b))
    if (a.grad, b.grad) == (0, 0):
        raise Mistake("seed", "All gradients stay 0: the gradient of the result itself must start as 1.")
    if (a.grad, b.grad) != (5, 2):
        raise Mistake("value", f"For 2 * 5 the gradients are 5 and 2; yours are {a.grad:g} and {b.grad:g}.")
    graph = Graph()
    a = graph.value(2.0)
    graph.run(backward, graph.add(a, a))
    if a.grad == 1:
        raise Mistake(
            "overwrites",
            "For a + a the gradient of a is 2, yours is 1: the second contribution "
            "overwrites the first. Gradients of a value that is used twice add up.",
        )
    if a.grad != 2:
        raise Mistake("value", f"For a + a the gradient of a is 2; yours is {a.grad:g}.")


def _check_random(backward):
    """A random graph against derivatives carried forward from one leaf, so that no order can be wrong."""
    generator = np.random.default_rng(0)
    graph = Graph()
    values = [graph.value(float(v)) for v in generator.uniform(0.5, 1.5, 3)]
    forward = [1.0, 0.0, 0.0]
    for _ in range(12):
        i, j = (int(k) for k in generator.integers(len(values) - 3 if len(values) > 6 else 0, len(values), 2))
        a, b = values[i], values[j]
        if generator.random() < 0.5:
            values.append(graph.add(a, b))
            forward.append(forward[i] + forward[j])
        else:
            values.append(graph.multiply(a, b))
            forward.append(forward[i] * b.data + forward[j] * a.data)
    graph.run(backward, values[-1])
    if not np.isclose(values[0].grad, forward[-1]):
        raise Mistake(
            "value", f"In a random graph of 15 values one gradient is {values[0].grad:g} and should be {forward[-1]:g}."
        )


def _check_chain(backward):
    graph = Graph()
    x = y = graph.value(0.0)
    one = graph.value(1.0)
    for _ in range(100_000):
        y = graph.add(y, one)
    graph.run(backward, y)
    if (x.grad, one.grad) != (1, 100_000):
        raise Mistake(
            "value",
            f"In a chain of 100,000 sums the gradients are 1 and 100000; yours are {x.grad:g} and {one.grad:g}.",
        )


def check_unbroadcast(unbroadcast):
    generator = np.random.default_rng(0)
    cases = [
        ((4, 3), (3,)),
        ((4, 3), (4, 3)),
        ((2, 4, 3), (3,)),
        ((4, 3), (1, 3)),
        ((4, 3), (4, 1)),
        ((5, 4, 3), (4, 1)),
        ((4, 3), ()),
        ((2, 1, 3), (1, 1)),
        ((3, 3), (3, 1)),
        ((1, 3), (1, 3)),
    ]
    for large, small in cases:
        grad = generator.normal(size=large)
        kept = grad.copy()
        result = numbers(unbroadcast(grad, small))
        expected = _sum_of_copies(kept, small)
        case = f"From shape {large} to {small}"
        if not np.array_equal(grad, kept):
            raise Mistake("in place", f"{case}: it changes the array that it was given.")
        if result.shape != small:
            _explain_shape(case, result.shape, large, small)
        if np.allclose(result, expected):
            continue
        copies = grad.size / max(expected.size, 1)
        if np.allclose(result * copies, expected):
            raise Mistake("mean", f"{case}: it takes the mean of the copies; each counts in full, so it is their sum.")
        first = kept[(0,) * (len(large) - len(small))]
        if np.allclose(result, first[tuple(slice(n) for n in small)]):
            raise Mistake("first", f"{case}: it keeps one of the copies and drops the others; their gradients add up.")
        raise Mistake("value", f"{case}: a value is wrong. Every element must be the sum of all its copies' gradients.")


def _explain_shape(case, shape, large, small):
    added = len(large) - len(small)
    if shape == large[added:] and shape != small:
        raise Mistake(
            "stretched",
            f"{case}: the result has shape {shape}. The dimensions that were added "
            "are summed, those stretched from size 1 are not.",
        )
    if shape == ():
        raise Mistake("one sum", f"{case}: it sums everything into one number; only what was copied is summed.")
    if 1 in small and shape == tuple(n for n in small if n != 1):
        raise Mistake("lost dimension", f"{case}: the result has shape {shape}; a dimension of size 1 must stay.")
    if shape[added:] == small and all(n == 1 for n in shape[:added]):
        raise Mistake("kept dimension", f"{case}: the result has shape {shape}; added dimensions must go.")
    raise Mistake("shape", f"{case}: the result has shape {shape}.")


def _sum_of_copies(grad, shape):
    """The sum by its definition: every element of `grad` goes where broadcasting took it from."""
    result = np.zeros(shape)
    source = np.broadcast_to(np.arange(result.size).reshape(shape), grad.shape)
    np.add.at(result.reshape(-1), source.reshape(-1), grad.reshape(-1))
    return result


EXERCISES = [
    Exercise("divide", check_divide, returns="(a / b, (slope in a, slope in b))", hints=(
        "The slope in a: hold b still. How much does a / b grow when a grows by 1?",
        "a / b is a times 1/b. The derivative of 1/b is -1/b².",
        "The slopes are 1/b and -a/b².")),
    Exercise("backward", check_backward, returns=None, hints=(
        "A value may send its gradient on when all its users have contributed. So you must know how many users it has.",
        "Two walks. The first: a list that starts as [result]; for each value in it count one more user for every "
        "parent, and append the parent the first time you meet it. A dict from value to count will do.",
        "The second: ready = [result], with result.grad = 1.0. Take a value out; for each parent and slope add "
        "value.grad * slope to parent.grad and take one from the parent's count; at zero the parent is ready.")),
    Exercise("unbroadcast", check_unbroadcast, returns="an array of the given shape",
             own=("minidl.ops.shape.unbroadcast",), hints=(
        "Broadcasting aligns shapes at the right. What is missing at the left was added: sum over it, and it is gone.",
        "Then look for dimensions where `shape` has 1 and the gradient has more: sum over them with keepdims=True.",
        "added = grad.ndim - len(shape); grad = grad.sum(axis=tuple(range(added))); then the same for every d with "
        "shape[d] == 1, with keepdims=True.")),
]  # fmt: skip
