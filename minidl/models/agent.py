"""An agent that learns by policy gradients: REINFORCE with a baseline (Williams 1992).

policy = agent()
optimizer = optim.Adam(policy.parameters(), lr=0.01)
for steps in reinforce(policy, CartPole(), optimizer, updates=60):
    print(f"the pole stayed up for {steps:.0f} of 200 steps")
"""

from collections.abc import Iterator
from functools import partial
from typing import Protocol

import numpy as np

from minidl import nn, ops
from minidl.creation import arange, tensor, zeros
from minidl.grad_mode import no_grad
from minidl.optim import Optimizer


class Environment(Protocol):
    """`count` copies of a world. An observation has `observations` numbers, an action is one of `actions`."""

    count: int
    observations: int
    actions: int

    def reset(self) -> np.ndarray: ...

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...


def agent(observations: int = 4, actions: int = 2, hidden: int = 32, mesh=None) -> nn.Sequential:
    """Observations (batch, observations) -> (batch, actions + 1): logits of the actions, and the return expected.

    The last column is the baseline, learned beside the policy. It is not split over a mesh.
    """
    model = nn.Sequential(
        nn.Linear(observations, hidden), nn.Tanh(),
        nn.Linear(hidden, hidden), nn.Tanh(),
        nn.Linear(hidden, actions + 1),
    )  # fmt: skip
    model.example, model.loss = partial(_example, observations), PolicyGradientLoss
    return model


def _example(observations, batch):
    return zeros(batch, observations), zeros(batch, 2)


class PolicyGradientLoss(nn.Loss):
    """-(G - b) log p(a) + (G - b)² / 2 for each action a taken, G being the return that followed and b the baseline.

    Output: (batch, actions + 1), logits and baseline; target: (batch, 2), the action and the return. In the first term
    the baseline is a constant: it makes the gradient less noisy and does not bias it (Williams 1992, theorem 1).
    Weight: one an action.
    """

    def sum_and_weight(self, output, target):
        batch, actions = output.shape[0], output.shape[1] - 1
        logits, baseline = ops.split(output, [actions, 1], 1)
        taken, returns = target[:, 0].to("int64"), target[:, 1:]
        ahead = returns - baseline  # (batch, 1)
        log_p = ops.log_softmax(logits, 1)[arange(batch, device=output.device), taken]
        policy = -(ahead.detach().reshape(batch) * log_p).sum()
        return policy + (ahead * ahead).sum() / 2, float(batch)


def reinforce(
    policy: nn.Module,
    environment: Environment,
    optimizer: Optimizer,
    updates: int,
    discount: float = 0.99,
    seed: int = 0,
) -> Iterator[float]:
    """Play all copies of `environment` until each is over, update once, and so on: `updates` times.

    discount: of the rewards, for each step that they come later. Returns are learned times 1 - discount, as averages of
    the rewards, which are of size 1. Yields the mean sum of rewards of each round's episodes, before its update.
    """
    loss, generator = PolicyGradientLoss(), np.random.default_rng(seed)
    for _ in range(updates):
        observations, actions, rewards, played = play(policy, environment, generator)
        returns, after = np.zeros_like(rewards), 0.0  # (steps, count)
        for step in reversed(range(len(rewards))):
            after = returns[step] = (1 - discount) * rewards[step] + discount * after
        target = np.stack([actions[played], returns[played]], 1, dtype=np.float32)
        optimizer.zero_grad()
        loss(policy(tensor(observations[played])), tensor(target)).backward()
        optimizer.step()
        yield float(rewards.sum(0).mean())


def play(policy: nn.Module, environment: Environment, generator: np.random.Generator):
    """One episode of each copy, actions drawn from the policy.

    Arrays (steps, count, …): observations, actions, rewards, and whether the episode was still played at that step.
    """
    observation, playing, history = environment.reset(), np.ones(environment.count, bool), []
    while playing.any():
        with no_grad():
            logits = policy(tensor(observation)).numpy()[:, :-1]
        action = (logits + generator.gumbel(size=logits.shape)).argmax(1)  # a draw from softmax(logits)
        following, reward, over = environment.step(action)
        history.append((observation, action, reward * playing, playing))
        observation, playing = following, playing & ~over
    return tuple(np.stack(column) for column in zip(*history, strict=True))
