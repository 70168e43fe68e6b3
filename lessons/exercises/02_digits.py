# %% [markdown]
# # Exercises of lesson 2: training on digits
#
# Replace each `raise NotImplementedError` by your answer. Then: `python -m lessons check 2`.
# `python -m lessons hint 2` gives a hint for the first function that is not right yet.
#
# Write the answers out yourself: where a formula is asked, neither finite differences nor minidl's autograd will do.

# %%
import numpy as np  # noqa: F401

# %% [markdown]
# ## 1. A step with momentum


# %%
def sgd_step(parameter, gradient, velocity, lr, momentum):
    """One step of SGD with momentum. Returns (new parameter, new velocity).

    parameter, gradient, velocity: NumPy arrays of the same shape, to be left as they are. velocity is 0 at the start.
    """
    raise NotImplementedError


# %% [markdown]
# ## 2. The gradient of the loss


# %%
def cross_entropy_gradient(logits, labels):
    """The gradient of the mean cross-entropy of a batch with respect to its logits, by a formula.

    logits: (batch, classes), of any size, also 1000. labels: (batch,), the right class of each row, as integers.
    Returns (batch, classes).
    """
    raise NotImplementedError


# %% [markdown]
# ## 3. How good is it?


# %%
def accuracy(logits, labels):
    """The share of the rows, between 0 and 1, whose largest logit is that of the right class.

    logits: (batch, classes). labels: (batch,).
    """
    raise NotImplementedError
