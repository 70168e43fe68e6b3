# %% [markdown]
# # 2. Training on digits
#
# *About 25 minutes to read and run, and 25 for the exercises.*
#
# Lesson 1 found the gradient of any computation. Now a network of about 10,000 numbers learns to read handwritten
# digits, and you see every part of that at work: the **loss** that says how wrong it is, the gradient of the loss,
# the **step** that makes it less wrong, and the three words that everybody uses: batch, epoch, learning rate.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np

import minidl
from minidl import data, nn, optim
from minidl.parallel import Plan, train
from minidl.units import duration

# %% [markdown]
# ## The data
#
# 1,797 digits that people wrote by hand, each scanned to 8 × 8 grey values between 0 and 1 (UCI machine learning
# repository, *Optical Recognition of Handwritten Digits*). They come in two parts. The network learns from the
# **training set**. The **test set** it never sees while it learns: only that tells whether it can read, or has
# merely remembered.

# %%
train_set, test_set = data.digits()
x_train, y_train = train_set[np.arange(len(train_set))]  # (samples, 1, 8, 8) and (samples,)
x_test, y_test = test_set[np.arange(len(test_set))]
print(f"training set: images {x_train.shape} {x_train.dtype}, labels {y_train.shape} {y_train.dtype}")
print(f"test set: {len(test_set)} images; grey values from {x_train.min()} to {x_train.max()}")

figure, axes = plt.subplots(2, 10, figsize=(9, 2.2), layout="constrained")
for i, axis in enumerate(axes.flat):
    axis.imshow(x_train[i, 0], cmap="gray_r")
    axis.set_title(f"{y_train[i]}", fontsize=10)
    axis.axis("off")
figure.savefig("lesson_02_digits.png", dpi=120)
print("saved lesson_02_digits.png")

# %% [markdown]
# ## A network, and how wrong it is
#
# The network is a **multi-layer perceptron** (MLP): the 64 grey values go through a matrix to 128 numbers, the
# negative ones of these become 0 (**ReLU**), and a second matrix makes 10 numbers of them, one for each digit.
# These are called **logits**; the largest one is the answer.
#
# **Softmax** turns logits into probabilities: `p = exp(logit) / sum(exp(logits))`. The **cross-entropy** loss of
# one image is `-log(p)` of the right digit: 0 if the network is sure and right, large if it is sure and wrong. A
# network that knows nothing gives every digit one tenth and has the loss `log(10)`, about 2.30. Ours, untrained,
# should be near that.


# %%
def build(mesh=None):
    """The network. `mesh` says how it is spread over workers, which is the subject of lesson 3."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def accuracy(model):
    """The share of the test images that `model` reads rightly."""
    with minidl.no_grad():
        logits = model(minidl.tensor(x_test)).numpy()
    return (logits.argmax(axis=1) == y_test).mean()


minidl.manual_seed(0)
model = build()
loss_function = nn.CrossEntropyLoss()
x, y = minidl.tensor(x_train[:32]), minidl.tensor(y_train[:32])
logits = model(x)
loss = loss_function(logits, y)
print(model)
print("numbers to learn:", sum(p.numel() for p in model.parameters()))
print(f"loss of the untrained network {loss.item():.3f}, log(10) = {np.log(10):.3f}, accuracy {accuracy(model):.1%}")

# %% [markdown]
# ## The gradient of the loss: p − y
#
# Take the derivative of `-log(p[right])` with respect to the logits, and nearly everything cancels. What remains is
# the **probability minus the truth**: `p[k]` for a wrong digit, `p[k] - 1` for the right one. A digit that got too
# much probability is pushed down, the right one up, each in proportion to the error. The loss of a batch is the
# *mean* over its images, so each image's gradient is divided by the size of the batch.
#
# One trap: `exp(1000)` is infinite. Softmax does not change when the same number is subtracted from all logits, so
# one subtracts the largest: then no exponent is above 0.


# %%
def softmax(logits):
    """(batch, classes) -> (batch, classes), each row positive with sum 1."""
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


leaf = minidl.tensor(logits.numpy(), requires_grad=True)  # the logits again, as the start of a new tape
loss_function(leaf, y).backward()
p = softmax(leaf.numpy())
truth = np.eye(10)[y.numpy()]  # (batch, classes): 1 at the right digit
by_hand = (p - truth) / len(p)
print(f"largest difference between autograd and (p - y) / batch: {abs(leaf.grad.numpy() - by_hand).max():.1e}")
with np.errstate(over="ignore", invalid="ignore"):
    big = np.exp(np.array([1000.0, 0.0]))
    print(
        "softmax of [1000, 0] without the subtraction:",
        big / big.sum(),
        " with it:",
        softmax(np.array([[1000.0, 0]]))[0],
    )

# %% [markdown]
# ## One step
#
# The gradient points to where the loss grows, so we go the other way: `parameter -= lr * gradient`. `lr` is the
# **learning rate**. This is **gradient descent**; with a random batch in place of all the data it is *stochastic*
# gradient descent, **SGD**.
#
# **Momentum** gives the step a memory: a velocity that forgets a tenth of itself each time and takes up the new
# gradient. Directions that stay the same from step to step add up, those that flip cancel out.
#
#     velocity  = momentum * velocity + gradient
#     parameter = parameter - lr * velocity
#
# Three steps by hand, on copies of the parameters, beside three steps of `optim.SGD`:

# %%
lr, momentum = 0.1, 0.9
by_hand = [p.numpy().copy() for p in model.parameters()]
velocities = [np.zeros_like(p) for p in by_hand]
optimizer = optim.SGD(model.parameters(), lr=lr, momentum=momentum)
for step in range(3):
    optimizer.zero_grad()
    loss = loss_function(model(x), y)
    loss.backward()
    for p, copy, velocity in zip(model.parameters(), by_hand, velocities, strict=True):
        velocity *= momentum
        velocity += p.grad.numpy()
        copy -= lr * velocity
    optimizer.step()
    difference = max(abs(p.numpy() - copy).max() for p, copy in zip(model.parameters(), by_hand, strict=True))
    print(f"step {step}: loss {loss.item():.3f}, largest difference between by hand and optim.SGD {difference:.1e}")

# %% [markdown]
# ## Batch, epoch, learning rate
#
# - A **batch** is the handful of images that one step looks at. More of them make the gradient less noisy and the
#   step dearer.
# - An **epoch** is one pass over the whole training set, in a new random order each time.
# - The **learning rate** is the length of the step. It is the one knob that you must turn: too small and nothing
#   happens, too large and the step jumps over the valley that it should walk down.
#
# The same network, from the same start, on the same batches, with four learning rates and no momentum:


# %%
def train_by_hand(lr, epochs=12, batch_size=64):
    """Losses of plain SGD, step by step, and the accuracy at the end."""
    minidl.manual_seed(0)
    model = build()
    optimizer = optim.SGD(model.parameters(), lr=lr)
    generator = np.random.default_rng(0)
    losses = []
    for _ in range(epochs):
        order = generator.permutation(len(train_set))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            batch = order[start : start + batch_size]
            optimizer.zero_grad()
            loss = loss_function(model(minidl.tensor(x_train[batch])), minidl.tensor(y_train[batch]))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses, accuracy(model)


figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
for lr in 0.003, 0.03, 0.3, 6.0:
    losses, reached = train_by_hand(lr)
    smooth = np.convolve(losses, np.ones(11) / 11, mode="valid")
    axis.semilogy(np.arange(len(smooth)) + 5, smooth, label=f"lr = {lr}: test accuracy {reached:.1%}")
    print(f"lr = {lr:<5}: loss {losses[0]:.2f} -> {np.mean(losses[-11:]):.3f}, test accuracy {reached:.1%}")
axis.axhline(np.log(10), color="gray", linestyle=":", label="knows nothing: log(10)")
steps_per_epoch = len(train_set) // 64
axis.set(
    xlabel=f"step ({steps_per_epoch} steps are an epoch)",
    ylabel="training loss, mean of 11 steps",
    title="Too short, right, and too long a step",
)
axis.set_ylim(top=40)
axis.legend(fontsize=9, ncols=2, loc="upper right")
axis.grid(alpha=0.3)
figure.savefig("lesson_02_learning_rates.png", dpi=120)
print("saved lesson_02_learning_rates.png")

# %% [markdown]
# ## Training, the way the rest of the lessons do it
#
# `minidl.parallel.train` does all of the above: it draws the batches, runs forward, backward and the step, and
# keeps the time. It gets a function that builds the model, the data, and a `Plan`. An empty plan is one worker.
# What other plans do is the subject of lesson 3; nothing else here will change then.

# %%
EPOCHS, BATCH = 15, 64
start = time.perf_counter()
run = train(
    build,
    train_set,
    Plan(),
    optimizer=lambda parameters: optim.SGD(parameters, lr=0.1, momentum=0.9),
    loss=nn.CrossEntropyLoss(),
    batch_size=BATCH,
    steps=EPOCHS * -(-len(train_set) // BATCH),
    seed=0,
)
seconds = time.perf_counter() - start
trained = build()
trained.load_state_dict(run.state_dict())
print(f"{len(run.losses)} steps of {duration(run.step_seconds)}; {duration(seconds)} with the start of the worker")
print(f"loss {run.losses[0]:.3f} -> {np.mean(run.losses[-10:]):.4f}; test accuracy {accuracy(trained):.1%}")
assert accuracy(trained) >= 0.95

# %% [markdown]
# What does it get wrong? Look at the images: would you have known?

# %%
with minidl.no_grad():
    p = softmax(trained(minidl.tensor(x_test)).numpy())
answers = p.argmax(axis=1)
wrong = np.flatnonzero(answers != y_test)
wrong = wrong[np.argsort(-p[wrong, answers[wrong]])]  # the surest mistakes first
print(f"{len(wrong)} of {len(y_test)} test images are read wrongly")

figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
per_epoch = -(-len(train_set) // BATCH)
epoch_losses = np.reshape(run.losses, (EPOCHS, per_epoch)).mean(axis=1)
axis.plot(run.losses, linewidth=0.6, alpha=0.6, label="each step")
axis.plot((np.arange(EPOCHS) + 0.5) * per_epoch, epoch_losses, "o-", label="mean of each epoch")
axis.legend()
axis.set(
    xlabel="step",
    ylabel="training loss",
    yscale="log",
    title=f"One worker, {EPOCHS} epochs: test accuracy {accuracy(trained):.1%}",
)
axis.grid(alpha=0.3)
figure.savefig("lesson_02_loss.png", dpi=120)

figure, axes = plt.subplots(1, min(len(wrong), 8), figsize=(9, 1.45), layout="constrained", squeeze=False)
for axis, i in zip(axes[0], wrong, strict=False):
    axis.imshow(x_test[i, 0], cmap="gray_r")
    axis.set_title(f"a {y_test[i]}, read as {answers[i]}\n(p = {p[i, answers[i]]:.2f})", fontsize=8)
    axis.axis("off")
figure.savefig("lesson_02_mistakes.png", dpi=120)
print("saved lesson_02_loss.png and lesson_02_mistakes.png")

# %% [markdown]
# ## What you saw
#
# - The loss of a classifier is `-log` of the probability that it gave to the truth; the gradient of that is **p −
#   y**, divided by the size of the batch.
# - A step goes against the gradient; momentum remembers the last steps.
# - Batch, epoch, learning rate: how many images a step sees, how often all of them are seen, how far a step goes.
#
# ## Exercises
#
# `python -m lessons start 2` puts `lesson_02_digits.py` into your folder. Write, in NumPy:
#
# 1. `sgd_step(parameter, gradient, velocity, lr, momentum)`: one step with momentum.
# 2. `cross_entropy_gradient(logits, labels)`: p − y for a whole batch, also where a logit is 1000.
# 3. `accuracy(logits, labels)`: the share of right answers.
#
# Then `python -m lessons check 2`, and `python -m lessons hint 2` where you are stuck.
