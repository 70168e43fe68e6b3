# %% [markdown]
# # Exercises of lesson 3: data parallelism
#
# Replace each `raise NotImplementedError` by your answer. Then: `python -m lessons check 3`.
# `python -m lessons hint 3` gives a hint for the first function that is not right yet.

# %%
import math  # noqa: F401

import numpy as np  # noqa: F401

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
# ## 2. The cost of a ring all-reduce


# %%
def ring_all_reduce_seconds(nbytes, workers, alpha, beta):
    """Seconds of an all-reduce of `nbytes` bytes around a ring.

    In each step every worker sends one chunk, 1/workers of the bytes, to the next one, all at the same time.
    A message of s bytes takes alpha + s * beta seconds. One worker alone need not send anything.
    """
    raise NotImplementedError


# %% [markdown]
# ## 3. When does another worker pay?


# %%
def break_even_batch(seconds_per_sample, communication, workers):
    """The smallest batch, divisible by `workers`, that `workers` workers finish sooner than one worker does.

    One worker takes seconds_per_sample for each sample. Several share the samples evenly and then communicate for
    `communication` seconds. workers is at least 2. Returns an int.

    Budget: no walk over batch sizes. The answer may be a million million.
    """
    raise NotImplementedError
