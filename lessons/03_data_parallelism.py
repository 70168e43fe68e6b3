# %% [markdown]
# # 3. Data parallelism, measured and simulated
#
# *About 30 minutes to read and run, and 40 for the exercises.*
#
# One worker trains. A second one stands idle. The simplest way to use it: give each half of the batch. Two
# questions decide whether that is a good idea. Is the result still the same? And is it really sooner? The first has
# an exact answer. The second you will measure on this machine, and predict without running anything, and put both
# into one plot.

# %%
import os
import time

import matplotlib.pyplot as plt
import numpy as np

import minidl
from minidl import data, nn, optim
from minidl.parallel import Plan, forkserver, launch, train
from minidl.units import duration
from simulator import simulate
from simulator.calibrate import calibration, drift

print(f"this machine has {os.cpu_count()} cores")

# %% [markdown]
# ## Half the batch each
#
# The loss of a batch is the mean over its samples, and so is its gradient. Cut the batch into two equal halves,
# take the gradient of each, and average the two: that is the gradient of the whole. Every worker may then take the
# same step, and all have the same parameters for ever.
#
# It stays true only as long as the halves are equal. Training sets do not care: 1,437 digits in batches of 64 leave
# a last batch of 29.

# %%
train_set, test_set = data.digits()


def build(mesh=None):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


minidl.manual_seed(0)
model = build()


def gradient(samples):
    """The gradient of the mean loss over `samples`, all parameters in one array."""
    x, y = train_set[samples]
    model.zero_grad()
    nn.CrossEntropyLoss()(model(minidl.tensor(x)), minidl.tensor(y)).backward()
    return np.concatenate([p.grad.numpy().ravel() for p in model.parameters()])


def distance(a, b):
    """How far apart two gradients are, relative to the second."""
    return np.linalg.norm(a - b) / np.linalg.norm(b)


for sizes in (32, 32), (15, 14), (28, 1):
    whole = np.arange(sum(sizes))
    parts = np.split(whole, [sizes[0]])
    gradients = [gradient(part) for part in parts]
    averaged = np.mean(gradients, axis=0)
    weighted = np.average(gradients, axis=0, weights=sizes)
    truth = gradient(whole)
    print(
        f"parts of {sizes[0]:>2} and {sizes[1]:>2}: average of the averages is off by {distance(averaged, truth):.1e}, "
        f"weighted by size {distance(weighted, truth):.1e}"
    )

# %% [markdown]
# The average of the averages gives a sample in a small part more weight than one in a large part. For 15 and 14 the
# error is small, and that is the dangerous kind: training goes on, a little wrong, and nobody notices. The remedy
# is to add up *sums* and divide once by the number of all samples, which is the same as weighting.
#
# ## All-reduce
#
# The workers are processes, each with its own model. `launch` starts them and runs a function in each. What they
# need is one operation: everybody gives an array, everybody gets the sum. It is called **all-reduce**.


# %%
def work(group, sizes):
    """One worker: the gradient of its part, and the all-reduce that makes it that of the whole batch."""
    ends = np.cumsum([0, *sizes])
    own = np.arange(ends[group.rank], ends[group.rank + 1])
    total = minidl.tensor(gradient(own) * len(own))  # a sum over samples, not a mean
    group.all_reduce(total)
    return total.numpy() / sum(sizes)


results = launch(work, workers=2, args=((15, 14),))
print(f"both workers hold the same bits: {np.array_equal(*results)}")
print(f"and they hold the gradient of the whole batch: off by {distance(results[0], gradient(np.arange(29))):.1e}")

# %% [markdown]
# ### What it costs
#
# Over a network, the usual way to do it is a **ring**. Cut the array into as many chunks as there are workers. In
# every step each worker sends one chunk to its right-hand neighbour. In the first n − 1 steps the receiver adds the
# chunk to its own: at the end each worker has one chunk that is complete. In another n − 1 steps the complete
# chunks go round. So each worker sends 2(n − 1) chunks of 1/n: `2(n − 1)/n` times the array, less than twice,
# however many workers there are.


# %%
def ring_all_reduce(arrays):
    """Sum `arrays` (one for each worker) around a ring. Returns what each ends with, and how many numbers each sent."""
    n, sent = len(arrays), 0
    chunks = [np.array_split(array.copy(), n) for array in arrays]  # chunks[worker][chunk]
    for step in range(2 * (n - 1)):
        messages = [(r, (r - step) % n) for r in range(n)]  # (worker, the chunk that it sends)
        payloads = [chunks[r][c].copy() for r, c in messages]
        sent += payloads[0].size
        for (r, c), payload in zip(messages, payloads, strict=True):
            right = (r + 1) % n
            chunks[right][c] = chunks[right][c] + payload if step < n - 1 else payload
    return [np.concatenate(own) for own in chunks], sent


generator = np.random.default_rng(0)
for n in 2, 4, 8, 64:
    arrays = [generator.integers(0, 100, 6400) for _ in range(n)]
    summed, sent = ring_all_reduce(arrays)
    assert all(np.array_equal(own, np.sum(arrays, axis=0)) for own in summed)
    print(
        f"{n:>2} workers: each sends {sent / 6400:.3f} of the array, 2(n - 1)/n = {2 * (n - 1) / n:.3f}; "
        f"each sending all to all others would be {n - 1}"
    )

# %% [markdown]
# Our workers sit in one machine and share memory, so minidl needs no ring here: each one sums its share of
# everybody's array and writes it back to everybody.
#
# ## A plan becomes a program
#
# `Plan(data=2)` asks for two replicas of the model. minidl turns a plan into a **program**: a list of instructions
# for each worker. It is plain data. The workers run it, the simulator prices it, and we can print it:


# %%
def sgd(parameters):
    return optim.SGD(parameters, lr=0.1, momentum=0.9)


recipe = {"optimizer": sgd, "loss": nn.CrossEntropyLoss(), "batch_size": 64, "steps": 60, "seed": 0}
two = train(build, train_set, Plan(data=2, bucket_mb=0.004), **recipe)

for rank in range(2):
    print(f"rank {rank}")
    for instruction in two.program[rank].step:
        print(f"    {instruction.lane:14}{instruction.name:14}{type(instruction).__name__}")

# %% [markdown]
# Both lists are the same; only the samples differ that a worker loads. Each instruction belongs to a **lane**: what
# is on different lanes can run at the same time. After `F0`, the forward pass of micro-batch 0, the only one here,
# backward runs in two parts, because the gradients are reduced in two **buckets**. The gradients of the last layer
# are ready first, so `reduce 1` may start while the first layer still goes backward. `reduce loss` adds up the loss
# and the number of samples, by which everybody divides: the weights of the first section. `update` is the step.
#
# ## When does what happen?
#
# While it runs the program, every worker writes down when each instruction began and ended: the **trace**. The
# simulator makes a trace of the same program without running it, from what it knows about this machine. `calibration`
# finds that out by small experiments: matrix products of many sizes, the speed of memory, single messages and
# collectives between workers. No parallel training is among them, so it cannot simply remember the answer.

# %%
calibrated = calibration(progress=lambda what: print("measuring", what))
here = calibrated.cluster()
predicted = simulate(
    build, Plan(data=2, bucket_mb=0.004), here, batch_size=64, optimizer=sgd, example=train_set[np.arange(1)]
)

# %%
steps = sorted(two.trace.steps(), key=lambda step: step.step_seconds)
quickest, median = steps[0], steps[len(steps) // 2]
print(f"measured: the quickest of {len(steps)} steps, {duration(quickest.step_seconds)}", end=" ")
print(f"(the median is {duration(median.step_seconds)})")
simulated = predicted.trace.steps()[-1]
print(f"simulated: {duration(simulated.step_seconds)}")
quickest.draw("lesson_03_timeline.png", simulated)
print("saved lesson_03_timeline.png: a row for each rank, with its communication below what it computes")

# %% [markdown]
# Compare the two: the same instructions, on the same lanes, in the same order, for both come from the same list.
# Gaps in the measured one are moments in which a worker waited for the other one, for a core, or for Python between
# two instructions. No instruction stands for those. The simulator adds a share of them to every instruction, and it
# cannot know what other programs do beside us. These only ever make a step longer: that is why the quickest is drawn,
# and the further the median is from it, the busier this machine is.
#
# ## Is it still the same training?
#
# From the same seed, one worker and two must give the same losses and the same parameters. In minidl this is called
# **plan invariance**, and it is the main test of the whole runtime. "The same" means up to rounding: the sums are
# taken in another order. In float64 the rounding is half a billion times finer, and so is the difference. 60 steps
# are more than two epochs, so the uneven last batch is among them, twice.

# %%
for dtype in "float32", "float64":
    runs = [train(build, train_set, Plan(data=n), dtype=dtype, **recipe) for n in (1, 2)]
    one, two = [run.losses for run in runs]
    states = [np.concatenate([array.ravel() for array in run.state_dict().values()]) for run in runs]
    print(
        f"{dtype}: losses differ by {distance(np.array(two), np.array(one)):.1e}, "
        f"parameters by {distance(*states[::-1]):.1e}; last loss {one[-1]:.6f} and {two[-1]:.6f}"
    )

# %% [markdown]
# ## When does a second worker pay?
#
# With two workers each computes half the samples. But some things do not shrink: the all-reduce is new, the update
# of the parameters takes as long as before, and so does the calling of operations, however small they are. With few
# samples these win and the second worker is a loss. With many samples the computation wins. The batch in between is
# the **break-even**.
#
# There is a ceiling, too. Two cores of one machine share its memory and its power, and perhaps other programs run
# beside us. So first: how much longer does a worker need for the same matrix product when a second one computes at
# the same time? They do not communicate at all here.


# %%
def products(group):
    """Median seconds of a matrix product, after all workers have begun."""
    a = np.ones((512, 512), np.float32)
    times = []
    group.barrier()
    for _ in range(60):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return np.median(times)


alone, together = (min(max(launch(products, workers=n)) for _ in range(2)) for n in (1, 2))
print(f"a matrix product takes {duration(alone)} alone and {duration(together)} beside another worker:")
print(f"at this moment two workers get {2 * alone / together:.2f} times as much done as one")

# %% [markdown]
# That is the ceiling, for as long as the machine stays as it is now.
#
# The break-even depends on the model. Take three, `width` numbers wide. For each, measure a step with one worker
# and with two, one right after the other, at batches from 4 to 1024. A disturbance from outside only ever makes a
# step longer, so of the steps of a run the lower quartile counts.
#
# **How far can these numbers be trusted?** Measure the measuring: one case, the `REFERENCE`, is measured again and
# again between the others. On a quiet machine it takes the same time every time. By how much it does not, that is the
# **noise**. Where there is much of it, all is measured a second time, and the better of the two counts; but not where
# the first time took more than `PATIENCE`.

# %%
WIDTHS = (32, 256, 1024)
MEASURED_BATCHES = [4, 16, 64, 256, 1024]
REFERENCE = (256, 64)  # width and batch of the case by which the noise is measured
QUIET = 0.2  # on a quiet machine the noise is less than this
PATIENCE = 20  # seconds
SIMULATED_BATCHES = [2**k for k in range(1, 11)]
random_set = data.synthetic(4096, (64,))


def mlp(width):
    """A builder of a perceptron with two hidden layers of `width` numbers."""
    return lambda mesh: nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


def short_steps(parameters):
    return optim.SGD(parameters, lr=0.001, momentum=0.9)


def measure(width, batch, workers):
    """Seconds of a training step: the lower quartile of several."""
    steps = 10 if width * batch > 100_000 else 40
    run = train(
        mlp(width),
        random_set,
        Plan(data=workers),
        optimizer=short_steps,
        loss=nn.CrossEntropyLoss(),
        batch_size=batch,
        steps=steps,
        progress=False,
    )
    return np.quantile(run.step_times, 0.25)


def predict(width, batch, workers):
    """The same from the simulator: nothing is run."""
    example = random_set[np.arange(1)]
    plan = Plan(data=workers)
    return simulate(mlp(width), plan, here, batch_size=batch, example=example, optimizer=short_steps).step_seconds


def measure_all():
    """Each case once, between them the reference: fills `measured` and `repeated`."""
    for width in WIDTHS:
        print("measuring width", width)
        repeated.append([measure(*REFERENCE, workers) for workers in (1, 2)])
        for batch in MEASURED_BATCHES:
            seconds = [measure(width, batch, workers) for workers in (1, 2)]
            measured[width, batch] = np.minimum(seconds, measured.get((width, batch), np.inf))
    repeated.append([measure(*REFERENCE, workers) for workers in (1, 2)])


def noise():
    """By what share the slowest time of the reference is above the quickest, the larger of one and two workers."""
    return max(max(times) / min(times) - 1 for times in zip(*repeated, strict=True))


start = time.perf_counter()
measured, repeated = {}, []
with forkserver():  # workers start in 30 ms instead of 500, as copies of a process that has imported all they need
    measure_all()
    if noise() > QUIET and time.perf_counter() - start < PATIENCE:
        measure_all()
measuring = time.perf_counter() - start

start = time.perf_counter()
simulated = {
    (width, batch): [predict(width, batch, workers) for workers in (1, 2)]
    for width in WIDTHS
    for batch in SIMULATED_BATCHES
}
print(f"measuring took {duration(measuring)}, simulating {duration(time.perf_counter() - start)}")

(slower, _), busy = drift(calibrated), noise() > QUIET
how_noisy = f"the same case, measured {len(repeated)} times, took up to {noise():.0%} longer than its quickest"
print(f"how noisy this machine is: {how_noisy}")
print(f"a fixed probe takes {slower:.2f} times as long as when this machine was calibrated; the lines are for then")
if busy:
    print("That is a BUSY machine: other programs want its cores, and the points below may be far off.")
elif not 1 - QUIET < slower < 1 + QUIET:
    print("That is another speed than then: `python -m simulator calibrate --refresh` measures the machine anew.")
if busy or not 1 - QUIET < slower < 1 + QUIET:
    print("For a better plot run the lesson again: `python -m lessons run 3`; in a notebook, this cell and the next.")


# %%
def break_even(batches, speedups):
    """The batch from which on two workers are faster: a straight line between two points, over log2(batch)."""
    losing = [i for i, speedup in enumerate(speedups) if speedup <= 1]
    if not losing:
        return f"below {batches[0]}"
    if losing[-1] == len(batches) - 1:
        return f"above {batches[-1]}"
    (a, b), (x, y) = np.log2(batches[losing[-1] : losing[-1] + 2]), speedups[losing[-1] : losing[-1] + 2]
    return f"{2 ** (a + (b - a) * (1 - x) / (y - x)):.0f}"


figure, axes = plt.subplots(2, len(WIDTHS), figsize=(11, 6.5), layout="constrained", sharex=True, sharey="row")
for column, width in enumerate(WIDTHS):
    above, below = axes[:, column]
    for kind, times, batches, style in (
        ("measured", measured, MEASURED_BATCHES, "o"),
        ("simulated", simulated, SIMULATED_BATCHES, "-"),
    ):
        one, two = np.array([times[width, batch] for batch in batches]).T
        above.loglog(batches, one * 1e3, style, color="tab:blue", label=f"1 worker, {kind}")
        above.loglog(batches, two * 1e3, style, color="tab:orange", label=f"2 workers, {kind}")
        pays = break_even(batches, one / two)
        below.semilogx(batches, one / two, style, color="tab:green", label=f"{kind}: break-even {pays}")
        print(
            f"width {width:>4}, {kind:>9}: break-even at batch {pays}, speedup {one[-1] / two[-1]:.2f} at {batches[-1]}"
        )
    below.axhline(1, color="black", linewidth=0.8)
    above.set_title(f"width {width}")
    below.set_xlabel("batch size (samples)")
    below.legend(fontsize=8, loc="upper left")
    for axis in above, below:
        axis.grid(alpha=0.3)
        axis.set_xticks(MEASURED_BATCHES, MEASURED_BATCHES)
        axis.minorticks_off()
axes[0, 0].set_ylabel("milliseconds of a step")
axes[0, 0].legend(fontsize=8)
axes[1, 0].set_ylabel("speedup by the second worker")
axes[1, 0].set_ylim(0, 2.4)
figure.suptitle(
    "When does a second worker pay? Points are measured on this machine, lines are simulated.\n"
    f"{'A BUSY machine' if busy else 'Noise'}: {how_noisy}."
)
figure.savefig("lesson_03_break_even.png", dpi=120)
errors = [abs(s / m - 1) for case in measured for s, m in zip(simulated[case], measured[case], strict=True)]
print(f"simulated against measured: the {len(errors)} step times differ by {np.mean(errors):.0%} on average")
print("saved lesson_03_break_even.png")

# %% [markdown]
# Read the lines of the lower row first: they are this machine with nothing else to do. Where a line is below 1, the
# second worker makes the training *slower*. With the batch it rises towards 2 and does not get there, since update,
# all-reduce and the cost of calling operations stay. And as a rule the narrow model needs the largest batch, although
# it has the fewest bytes to reduce: what its second worker must pay for is not bytes, it is the fixed price of waiting
# for each other and of calling operations. On a network that price is far higher, and so is the break-even.
#
# Then the points. How near they are to the lines depends on the noise, which stands above the plot. On a quiet machine
# they come close; the average is printed above. On a busy one they lie anywhere, and mostly below the lines: another
# program takes a core from *one* worker, and the other one waits for it in the all-reduce. So two workers lose more
# than one does, and no batch may be large enough. That is no accident of this plot. **Everybody waits for the
# slowest**: it is why large trainings get machines of their own.
#
# ## What you saw
#
# - The gradient of a batch is the average of its parts' gradients, **weighted by their sizes**.
# - **All-reduce** gives everybody the sum; around a ring each worker sends `2(n − 1)/n` of the array.
# - A plan becomes a **program**, the same list for the worker and for the simulator; both leave a trace.
# - **Plan invariance**: one worker and two give the same training, up to rounding.
# - A second worker pays when half the computation is worth more than the communication: above the **break-even**
#   batch.
#
# ## Exercises
#
# `python -m lessons start 3` puts `lesson_03_data_parallelism.py` into your folder. Four functions to write:
#
# 1. `average_gradients(gradients, sizes)`: right for parts of any size.
# 2. `parallel_gradient(x, y, w, workers)`: a gradient computed by workers, with a `launch` and an all-reduce of yours.
# 3. `ring_all_reduce_seconds(nbytes, workers, alpha, beta)`: what the ring costs.
# 4. `break_even_batch(seconds_per_sample, communication, workers)`: the question of this lesson. *Budget: no walk
#    over batch sizes.*
#
# Then `python -m lessons check 3`, and `python -m lessons hint 3` where you are stuck.
