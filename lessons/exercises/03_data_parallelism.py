# %% [markdown]
# # Exercises of lesson 3: data parallelism
#
# Replace each `raise NotImplementedError` by your answer. Then: `python -m lessons check 3`.
# `python -m lessons hint 3` gives a hint for the first function that is not right yet.

# %%
import math  # noqa: F401

import numpy as np  # noqa: F401

from minidl.parallel import launch  # noqa: F401

# %% [markdown]
# ## 1. The gradient of the whole batch


# %%
def average_gradients(gradients, sizes):
    """The gradient of the mean loss over a batch, from those of its parts.

    gradients: a list of NumPy arrays of equal shape; each is the gradient of the mean loss over one part.
    sizes: a list of the numbers of samples in the parts; a part may be empty, but not all of them.
    """
    raise NotImplementedError


# %% [markdown]
# ## 2. The same by workers


# %%
def mean_gradient(x, y, w):
    """The gradient in w of the mean of (x @ w - y)² over the samples.

    x: (samples, inputs). y: (samples,). w: (inputs,), as is the gradient. All are NumPy arrays.
    """
    return 2 * (x @ w - y) @ x / len(x)


def parallel_gradient(x, y, w, workers):
    """The same as mean_gradient(x, y, w), by `workers` processes; each looks at its own part of the samples only.

    `launch` starts them, and np.array_split(np.arange(len(x)), workers) gives the parts, which need not be of one size.
    By an all-reduce every worker gets the whole gradient, and returns it. Returns the list of what they return.
    """
    raise NotImplementedError


# %% [markdown]
# ## 3. The cost of a ring all-reduce


# %%
def ring_all_reduce_seconds(nbytes, workers, alpha, beta):
    """Seconds of an all-reduce of `nbytes` bytes around a ring.

    In each step every worker sends one chunk, 1/workers of the bytes, to the next one, all at the same time.
    Bytes that do not divide evenly count as fractions. A message of s bytes takes alpha + s * beta seconds. One worker
    alone need not send anything.
    """
    raise NotImplementedError


# %% [markdown]
# ## 4. When does another worker pay?


# %%
def break_even_batch(seconds_per_sample, communication, workers):
    """The smallest batch, divisible by `workers`, that `workers` workers finish sooner than one worker does.

    One worker takes seconds_per_sample for each sample. Several share the samples evenly and then communicate for
    `communication` seconds. workers is at least 2. Returns an int: it is a count.

    Budget: no walk over batch sizes. The answer may be a million million.
    """
    raise NotImplementedError
