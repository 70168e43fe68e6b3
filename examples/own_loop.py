"""A training loop of your own on a process group: what `train` does for data parallelism, written out.

`launch` starts the workers. Each has the whole model and its share of every batch; `group.all_reduce` brings the
gradients together, in place.
"""

import numpy as np

import minidl
from minidl import data, models, nn, optim
from minidl.parallel import launch

STEPS, BATCH = 30, 256


def work(group):
    """What every worker does; what it returns is in the list that `launch` returns."""
    train_set, _ = data.digits()
    minidl.manual_seed(0)  # the same parameters on every rank
    model, criterion = models.mlp((64, 256, 10)), nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=1e-2)
    order = np.random.default_rng(0).permutation(len(train_set))  # the same order, too
    losses = []
    for step in range(STEPS):
        first = step * BATCH % (len(order) - BATCH)
        x, y = train_set[np.array_split(order[first : first + BATCH], group.size)[group.rank]]
        optimizer.zero_grad()
        loss = criterion(model(minidl.tensor(x)), minidl.tensor(y))
        loss.backward()
        for parameter in model.parameters():
            group.all_reduce(parameter.grad, op="mean")  # the shares are equal, so the mean of means is the mean
        optimizer.step()
        losses.append(group.all_reduce(loss.detach(), op="mean").item())
    return losses, np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])


[(alone, one)] = launch(work, workers=1)
(losses, first), (_, second) = launch(work, workers=2)
for step in 0, 9, 19, 29:
    print(f"step {step:2}: loss {alone[step]:.6f} with one worker, {losses[step]:.6f} with two")
print(f"parameters of the two workers are equal: {np.array_equal(first, second)}")
print(f"and no more than {np.abs(first - one).max():.1g} from those of one worker")
