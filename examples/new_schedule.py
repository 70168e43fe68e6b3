"""A pipeline schedule of your own: one function, which is then proved, trained, simulated and drawn.

A schedule says in which order a stage runs the forwards and backwards of its micro-batches. All else, what is loaded,
sent, received and reduced, follows from that (minidl/parallel/assembly.py).
"""

from dataclasses import replace

from minidl import data, models, nn, optim
from minidl.parallel import Plan, ProgramError, check, train
from minidl.parallel.prepare import prepare
from minidl.parallel.schedules import BACKWARD, FORWARD, Pass
from simulator import Cluster, simulate

AHEAD = 2  # micro-batches that a stage starts before 1F1B would


def eager(stage, stages, micro_batches, chunks):
    """1F1B with a longer warm-up: more activations are kept, and a late message does less harm."""
    warm_up = min(stages - stage - 1 + AHEAD * (stage < stages - 1), micro_batches)
    for m in range(warm_up):
        yield Pass(FORWARD, m)
    for m in range(micro_batches):
        if m + warm_up < micro_batches:
            yield Pass(FORWARD, m + warm_up)
        yield Pass(BACKWARD, m)


def forgetful(stage, stages, micro_batches, chunks):
    """The same, but that the first stage leaves out a backward."""
    passes = list(eager(stage, stages, micro_batches, chunks))
    return iter(passes[:-1] if stage == 0 else passes)


def build(mesh):
    return models.mlp((64, 256, 256, 256, 10), mesh)


train_set, _ = data.digits()
settings = dict(
    batch_size=256, loss=nn.CrossEntropyLoss(), optimizer=lambda parameters: optim.Adam(parameters, lr=1e-2)
)
own = Plan(pipeline=2, micro_batches=8, schedule=eager)

# Proved: `check` runs the lists with tags instead of numbers, here for four stages.
four = Plan(pipeline=4, micro_batches=8, schedule=eager)
for plan in Plan(pipeline=4, micro_batches=8, schedule="1f1b"), four:
    kept = check(prepare(build, plan, 256).training).peak_micro_batches
    print(f"{plan}: stages keep {', '.join(map(str, kept.values()))} micro-batches at most")
try:
    check(prepare(build, Plan(pipeline=4, micro_batches=8, schedule=forgetful), 256).training)
except ProgramError as error:
    print(f"forgetful is refused: {error}")

# Trained, with the losses of one worker.
alone, run = train(build, train_set, Plan(), steps=20, **settings), train(build, train_set, own, steps=20, **settings)
print(f"loss after 20 steps: {run.losses[-1]:.6f}; with one worker {alone.losses[-1]:.6f}")

# Simulated, on a cluster.
where = Cluster.load("dgx-a100", devices=4)
for plan in Plan(pipeline=4, micro_batches=8, schedule="1f1b"), four:
    p = simulate(models.builder("gpt2-small"), replace(plan, precision="bfloat16"), where, batch_size=64)
    print(f"GPT-2 on four A100, {plan}: {p.step_seconds * 1e3:.0f} ms, {p.memory_bytes / 1e9:.1f} GB")

# Drawn, without clocks and as it was.
p.program.draw("new_schedule.png")
run.trace.draw("new_schedule_measured.png")
print("drawn: new_schedule.png, new_schedule_measured.png")
