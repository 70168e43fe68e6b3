"""Data parallelism: two replicas, each with half of every batch, train to the losses of one worker."""

from minidl import data, models, nn, optim
from minidl.parallel import Plan, train

train_set, test_set = data.digits()


def run(plan):
    return train(
        lambda mesh: models.mlp((64, 1024, 1024, 10), mesh), train_set, plan, steps=20, batch_size=512,
        optimizer=lambda parameters: optim.SGD(parameters, lr=0.1, momentum=0.9), loss=nn.CrossEntropyLoss(),
    )  # fmt: skip


one, two = run(Plan()), run(Plan(data=2))
for step in 0, 6, 12, 19:
    print(f"step {step:2}: loss {one.losses[step]:.6f} with one worker, {two.losses[step]:.6f} with two")
print(f"a step: {one.step_seconds * 1e3:.1f} ms with one worker, {two.step_seconds * 1e3:.1f} ms with two")
