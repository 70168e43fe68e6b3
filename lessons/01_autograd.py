# %% [markdown]
# # 1. Autograd: from a scalar to a tensor
#
# *About 25 minutes to read and run, and 25 for the exercises.*
#
# A network is a function with very many numbers in it. Training asks one question again and again: if I change this
# number a little, how does the result change? The answer is a derivative, one for every number. **Autograd** finds
# all of them in one walk over the computation, for about the price of computing the result twice more.
#
# You will build it for single numbers in 40 lines, break it in two ways that look harmless, and then find the same
# idea in `minidl/tensor.py`.

# %%
import inspect
import math
import sys
import time

import matplotlib.pyplot as plt
import numpy as np

import minidl
from minidl.ops.arithmetic import Add
from minidl.ops.shape import unbroadcast
from minidl.tape import run_backward
from minidl.units import duration

# %% [markdown]
# ## A number that remembers
#
# A `Value` is a number. When two of them are added or multiplied, the new one keeps its **parents** and its
# **slopes**: how much it changes when a parent changes. For a product `a * b` the slopes are `b` and `a`.
#
# The **gradient** of a value says how much the final result changes when this value changes. The chain rule takes
# it one step back: a parent gets the gradient times the slope. It gets that from everyone who used it, so it *adds
# up*.


# %%
class Value:
    """A number that remembers how it was computed."""

    def __init__(self, data, parents=(), slopes=()):
        self.data = data  # the number itself
        self.grad = 0.0  # d(result) / d(this value), filled in by backward
        self.parents = parents  # the values it was computed from
        self.slopes = slopes  # d(this value) / d(parent), one for each parent

    def __add__(self, other):
        return Value(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    def tanh(self):
        t = math.tanh(self.data)
        return Value(t, (self,), (1 - t * t,))

    def send(self):
        """The chain rule, one step back."""
        for parent, slope in zip(self.parents, self.slopes, strict=True):
            parent.grad += self.grad * slope


# %% [markdown]
# One neuron: two inputs, two weights, a bias and a tanh. We know the order in which it was computed, so we walk it
# backwards by hand.

# %%
x1, x2, w1, w2, b = Value(2.0), Value(-1.0), Value(0.5), Value(0.8), Value(0.1)
p1 = w1 * x1
p2 = w2 * x2
s1 = p1 + p2
s2 = s1 + b
out = s2.tanh()

out.grad = 1.0  # the result changes exactly as much as itself
for value in (out, s2, s1, p2, p1):
    value.send()
print(f"out = {out.data:.4f}")
print(f"d out/d w1 = {w1.grad:.4f}, d out/d w2 = {w2.grad:.4f}, d out/d b = {b.grad:.4f}")

# %% [markdown]
# ## The judge: finite differences
#
# Is that right? There is a judge that knows nothing of slopes and chain rules: change the number a little in both
# directions and look at the result. `(f(x + h) - f(x - h)) / 2h` is called the **central difference**.
#
# It costs two evaluations *per number*, which is why nobody trains with it: a network with a million parameters
# would need two million evaluations for one step. But as a judge it is perfect.


# %%
def neuron(weight):
    return math.tanh(weight * x1.data + w2.data * x2.data + b.data)


h = 1e-5
judged = (neuron(w1.data + h) - neuron(w1.data - h)) / (2 * h)
print(f"autograd {w1.grad:.10f}")
print(f"judge    {judged:.10f}   difference {abs(judged - w1.grad):.1e}")

# %% [markdown]
# How small should `h` be? Too large, and the curve bends between the two points: the error falls with `h²`. Too
# small, and the two results agree in nearly all their digits, so that their difference is mostly rounding error,
# which grows with `1/h`. The best `h` lies between, and with float32 it is a poor judge everywhere. That is why
# minidl tests its derivatives in float64.

# %%
steps = 10.0 ** np.arange(-12, 0.1, 0.25)
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for dtype in np.float32, np.float64:
    x, true_slope = dtype(0.5), 1 - math.tanh(0.5) ** 2
    errors = []
    for h in steps.astype(dtype):
        slope = (np.tanh(x + h) - np.tanh(x - h)) / (2 * h)
        errors.append(abs(float(slope) - true_slope) / true_slope)
    errors = np.array(errors)
    best = errors.argmin()
    print(f"{dtype.__name__}: smallest error {errors[best]:.0e}, at h = {steps[best]:.0e}")
    axis.loglog(steps, errors, ".-", label=dtype.__name__)
axis.set(xlabel="h", ylabel="relative error of the slope", title="Central differences of tanh at 0.5")
axis.grid(alpha=0.3)
axis.legend()
figure.savefig("lesson_01_finite_differences.png", dpi=120)
print("saved lesson_01_finite_differences.png")

# %% [markdown]
# ## In which order?
#
# We knew the order because we wrote the neuron down ourselves. A machine only sees the result and its links to the
# parents. The first idea of almost everybody: start at the result, and whenever you reach a value, send its
# gradient on to its parents and go there.


# %%
def backward_eager(result):
    """Visit each value once, depth first, and send its gradient on at once. This is wrong."""
    result.grad = 1.0
    todo, seen = [result], {result}
    while todo:
        value = todo.pop()
        value.send()
        for parent in value.parents:
            if parent not in seen:
                seen.add(parent)
                todo.append(parent)


# %% [markdown]
# It passes on the neuron. Now a value that is used twice: with `y = x * x`, take `z = y * y + y`. Drawn as a graph
# this is a **diamond**: two ways lead from `z` back to `y`.
#
#          z
#         / \
#      y*y   |
#         \ /
#          y
#          |
#          x
#
# At `x = 3`: `z = x⁴ + x²`, so `dz/dx = 4x³ + 2x`, which is 114. And to be thorough, the same with the two terms of
# the sum exchanged.


# %%
def diamond(swapped):
    x = Value(3.0)
    y = x * x
    return x, (y + y * y if swapped else y * y + y)


for swapped in False, True:
    x, z = diamond(swapped)
    backward_eager(z)
    text = "y + y*y" if swapped else "y*y + y"
    print(f"z = {text}:  z = {z.data:.0f}, eager dz/dx = {x.grad:.0f}, the truth is {4 * 3**3 + 2 * 3}")

# %% [markdown]
# The same function, the same value, and the gradient depends on how the sum was written! Look at `z = y*y + y`. The
# walk reaches `y` by the short way first. At that moment `y.grad` is 1, and 1 is sent on to `x`. Later the long way
# delivers another 18 to `y`. It is added to `y.grad`, and there it stays: `y` was already visited.
#
# The rule that follows: **a value may send its gradient on only when everyone who used it has contributed.** An
# order in which every value comes after all its users is called **topological**.
#
# One could also send every contribution on separately, as soon as it arrives. That gives the right answer: the
# derivative is the sum over all paths from the result. But paths multiply. Below, `y = y + y` is repeated: each
# repetition doubles the number of paths.


# %%
def backward_every_path(result):
    """Send each contribution on separately. Right, and hopeless. Returns the number of visits."""
    todo, visits = [(result, 1.0)], 0
    while todo:
        value, contribution = todo.pop()
        visits += 1
        value.grad += contribution
        todo += [(parent, contribution * slope) for parent, slope in zip(value.parents, value.slopes, strict=True)]
    return visits


def topological(result):
    """All values that `result` was computed from, each after all its users. By recursion."""
    order, seen = [], set()

    def visit(value):
        if value not in seen:
            seen.add(value)
            for parent in value.parents:
                visit(parent)
            order.append(value)  # after everything it was computed from

    visit(result)
    return order[::-1]


def backward_topological(result):
    result.grad = 1.0
    order = topological(result)
    for value in order:
        value.send()
    return len(order)


def doubled(times):
    x = y = Value(1.0)
    for _ in range(times):
        y = y + y
    return x, y


for swapped in False, True:
    x, z = diamond(swapped)
    backward_topological(z)
    print(f"{'y + y*y' if swapped else 'y*y + y'}: topological dz/dx = {x.grad:.0f}")

counts = range(1, 17)
visits = {"every path": [], "topological": []}
for times in counts:
    for name, backward in ("every path", backward_every_path), ("topological", backward_topological):
        x, result = doubled(times)
        visits[name].append(backward(result))
        assert x.grad == 2**times
print(f"{times} doublings: every path {visits['every path'][-1]:,} visits, topological {visits['topological'][-1]}")

figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for name, numbers in visits.items():
    axis.semilogy(counts, numbers, "o-", label=name)
axis.set(xlabel="number of doublings y = y + y", ylabel="values visited", title="The price of the wrong order")
axis.grid(alpha=0.3)
axis.legend()
figure.savefig("lesson_01_visits.png", dpi=120)
print("saved lesson_01_visits.png")

# %% [markdown]
# ## Why without recursion?
#
# `topological` is short, and it is what most small autograd engines do. It calls itself once for every value along
# a path. Python's stack has a limit, and a recurrent network, a long sum or a training loop that forgot to cut the
# tape are all longer than it.


# %%
def chain(length):
    x = y = Value(0.0)
    one = Value(1.0)
    for _ in range(length):
        y = y + one
    return x, y


print(f"Python's recursion limit: {sys.getrecursionlimit()}")
for length in 100, 100_000:
    x, result = chain(length)
    try:
        backward_topological(result)
        print(f"a chain of {length:,}: dz/dx = {x.grad:.0f}")
    except RecursionError as error:
        print(f"a chain of {length:,}: {type(error).__name__}: {error}")

# %% [markdown]
# The way out needs no recursion. First walk over the graph with a list of your own and count, for each value, **how
# many users it has**. Then start from the result. Whenever a value sends its gradient to a parent, that parent is
# waiting for one user less. When it waits for nobody, it is ready. You will write this as an exercise.
#
# ## The same idea for tensors
#
# There a node of the graph is an `Op`, which handles a whole array, and `op.backward(grad)` takes the place of the
# slopes. `minidl/tape.py` saves itself the counting: every op is numbered when it is recorded, and a user is always
# recorded later than what it uses. So of the ops that have a gradient, the one recorded last waits for nobody. This is
# the real code; find where it is taken:

# %%
print(inspect.getsource(run_backward))

# %%
x = minidl.tensor(0.0, requires_grad=True)
y = x
start = time.perf_counter()
for _ in range(100_000):
    y = y + 1.0
forward_seconds = time.perf_counter() - start
start = time.perf_counter()
y.backward()
backward_seconds = time.perf_counter() - start
print(f"a chain of 100,000 tensors: dz/dx = {x.grad.item():.0f}")
print(f"forward {duration(forward_seconds / 100_000)} and backward {duration(backward_seconds / 100_000)} per op")

# %% [markdown]
# ## Broadcasting, backwards
#
# Arrays bring one new thing. In `x @ w + b` the product has a row per sample, the bias `b` has one row in all, and
# NumPy **broadcasts** it: every row gets a copy. A copied number is a number that is used several times, and you
# know the rule for that: its gradient is the *sum* of what the users send. Copy forwards, sum backwards.

# %%
generator = np.random.default_rng(0)
x = minidl.tensor(generator.normal(size=(4, 3)))  # (samples, inputs), float64
w = minidl.tensor(generator.normal(size=(3, 2)), requires_grad=True)  # (inputs, outputs)
b = minidl.tensor(generator.normal(size=(2,)), requires_grad=True)  # (outputs)
loss = (x @ w + b).tanh().sum()
loss.backward()
print("gradient of w", w.grad.shape, "and of b", b.grad.shape, "have the shapes of w and b")

# %% [markdown]
# In minidl the whole rule is one function. It sums over the dimensions that broadcasting **added** (the bias had no
# dimension for the samples) and those that it **stretched** (from size 1 to size n):

# %%
print(inspect.getsource(unbroadcast))
print(inspect.getsource(Add))

# %% [markdown]
# And the judge again, now for every element of an array:


# %%
def finite_differences(f, array, h=1e-5):
    """The gradient of the number f(array): two evaluations for each element."""
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        shift = np.zeros_like(array)
        shift[index] = h
        gradient[index] = (f(array + shift) - f(array - shift)) / (2 * h)
    return gradient


judged_w = finite_differences(lambda w_: np.tanh(x.numpy() @ w_ + b.numpy()).sum(), w.numpy())
judged_b = finite_differences(lambda b_: np.tanh(x.numpy() @ w.numpy() + b_).sum(), b.numpy())
print(f"largest difference to the judge: w {abs(w.grad.numpy() - judged_w).max():.1e}, "
      f"b {abs(b.grad.numpy() - judged_b).max():.1e}")  # fmt: skip

# %% [markdown]
# ## What you saw
#
# - A computation is a graph. Each node knows its parents and its slopes; the chain rule works one step at a time.
# - Gradients of a value that is used several times **add up**, and nothing may be sent on before the sum is
#   complete: **topological order**. The wrong order can give the right answer by luck, so test with a diamond, both
#   ways round.
# - Each value is visited **once**: the number of paths does not matter.
# - Tensors add one rule: what broadcasting copied is **summed** on the way back.
#
# ## Exercises
#
# `python -m lessons start 1` puts `lesson_01_autograd.py` into your folder. It has three functions to write:
#
# 1. `divide(a, b)`: the value and the two slopes of a quotient.
# 2. `backward(result)`: the topological walk without recursion. *Budget: one reading of `slopes` for each link of
#    the graph; the check counts.*
# 3. `unbroadcast(grad, shape)`: the sum that undoes broadcasting.
#
# `python -m lessons check 1` tells you how far you are, `python -m lessons hint 1` helps.
