# %% [markdown]
# # Exercises of lesson 1: autograd
#
# Replace each `raise NotImplementedError` by your answer. Then: `python -m lessons check 1`. `python -m lessons
# hint 1` gives a hint for the first function that is not right yet.
#
# Write the answers out yourself: where a formula is asked, neither finite differences nor minidl's autograd will do.

# %%
import numpy as np  # noqa: F401

# %% [markdown]
# ## 1. The slopes of a quotient


# %%
def divide(a, b):
    """The quotient of two numbers and its slopes, as a `Value` would keep them.

    Returns (a / b, (slope in a, slope in b)): a number and two numbers, each by a formula. b is never 0.
    """
    raise NotImplementedError


# %% [markdown]
# ## 2. Backward in topological order


# %%
def backward(result):
    """Set `grad` of every value that `result` was computed from to d(result) / d(that value).

    A value has `data`, `grad` (0.0 at the start), `parents` (a tuple of values; the same one may be in it twice) and
    `slopes` (a tuple of numbers, one for each parent). Values can be keys of a dict and elements of a set.

    Budget: read `slopes` at most once for each link from a value to a parent. A chain of 100,000 values must work,
    with Python's recursion limit as it is.
    """
    raise NotImplementedError


# %% [markdown]
# ## 3. Undo broadcasting


# %%
def unbroadcast(grad, shape):
    """The gradient of an array of shape `shape` that broadcasting turned into one of shape `grad.shape`.

    grad: NumPy array. Returns an array of shape `shape`; in each place the sum of all that broadcasting copied from it.
    """
    raise NotImplementedError
