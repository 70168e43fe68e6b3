"""The agent: the pole obeys the laws of motion, the loss is REINFORCE's, and the agent learns to keep the pole up."""

import numpy as np
import pytest

import minidl
from minidl import optim
from minidl.models.agent import PolicyGradientLoss, agent, reinforce
from minidl.models.cartpole import CART_MASS, FORCE, GRAVITY, HALF_LENGTH, POLE_MASS, SECONDS, CartPole


def test_the_pole_and_the_cart_obey_the_laws_of_motion():
    carts = CartPole(50)
    carts.state = before = np.random.default_rng(0).uniform(-0.2, 0.2, (4, 50))
    actions = np.arange(50) % 2
    carts.step(actions)
    (_, _, angle, spin), (_, linear, _, angular) = before, (carts.state - before) / SECONDS
    np.testing.assert_allclose((carts.state - before)[[0, 2]], SECONDS * before[[1, 3]], atol=1e-15)
    pole = POLE_MASS * HALF_LENGTH  # the equations of Lagrange for a rod that turns about its lower end
    force = (CART_MASS + POLE_MASS) * linear + pole * (angular * np.cos(angle) - spin**2 * np.sin(angle))
    np.testing.assert_allclose(force, np.where(actions, FORCE, -FORCE), rtol=1e-10)
    turning = 4 / 3 * HALF_LENGTH * angular + linear * np.cos(angle)
    np.testing.assert_allclose(turning, GRAVITY * np.sin(angle), atol=1e-10)


@pytest.mark.parametrize(("number", "least"), [(0, 2.39), (2, np.radians(11.9))], ids=["track", "angle"])
def test_an_episode_is_over_at_the_limits_and_not_before(number, least):
    carts = CartPole(2)
    carts.state = np.zeros((4, 2))
    carts.state[number] = [-least, -1.01 * least]
    carts.state[number + 1] = 0
    assert carts.step(np.array([1, 1]))[2].tolist() == [False, True]


def test_an_episode_is_over_after_its_limit_of_pushes():
    carts = CartPole(1, limit=3)
    assert [carts.step(np.array([i % 2]))[2].item() for i in range(3)] == [False, False, True]


def test_the_loss_and_its_gradient_equal_pytorchs():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    generator = np.random.default_rng(0)
    output, returns = generator.standard_normal((6, 4)), generator.standard_normal(6)
    actions = generator.integers(3, size=6)
    ours = minidl.tensor(output, requires_grad=True)
    loss = PolicyGradientLoss()(ours, minidl.tensor(np.stack([actions, returns], 1)))
    loss.backward()

    theirs = torch.tensor(output, requires_grad=True)
    chosen = torch.distributions.Categorical(logits=theirs[:, :3]).log_prob(torch.tensor(actions))
    ahead = torch.tensor(returns) - theirs[:, 3]
    expected = (-chosen * ahead.detach() + ahead**2 / 2).mean()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), rtol=1e-12)


def played(lr, updates):
    minidl.manual_seed(0)
    policy = agent()
    return list(reinforce(policy, CartPole(), optim.Adam(policy.parameters(), lr=lr), updates))


def test_the_agent_learns_to_keep_the_pole_up_for_190_of_200_pushes():
    assert np.mean(played(0.01, 80)[-10:]) >= 190


def test_an_agent_that_does_not_learn_lets_the_pole_fall_within_40_pushes():
    assert np.mean(played(0.0, 5)) < 40
