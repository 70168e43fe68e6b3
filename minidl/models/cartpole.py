"""A pole on a cart, to be kept upright by pushing the cart left or right: the environment of the agent."""

import numpy as np

GRAVITY = 9.8  # m/s²; these constants and the limits below: Barto, Sutton and Anderson 1983, appendix
CART_MASS = 1.0  # kg
POLE_MASS = 0.1  # kg
HALF_LENGTH = 0.5  # m, of the pole
FORCE = 10.0  # N, of a push
SECONDS = 0.02  # between two pushes
TRACK = 2.4  # m to either side, where the cart falls off
ANGLE = np.radians(12)  # at which the pole has fallen
START = 0.05  # each number of the state begins uniform within this


class CartPole:
    """`count` carts side by side, without friction (Barto, Sutton and Anderson 1983, "Neuronlike adaptive elements").

    The state of a cart, which is what an agent observes: position (m), speed (m/s), angle of the pole (radians from
    upright) and its speed. Action 0 pushes to the left, 1 to the right. Each push is rewarded by 1, until the pole
    falls, the cart leaves the track, or `limit` pushes are over.
    """

    observations, actions = 4, 2

    def __init__(self, count: int = 16, limit: int = 200, seed: int = 0):
        self.count, self.limit = count, limit
        self.generator = np.random.default_rng(seed)
        self.reset()

    def reset(self) -> np.ndarray:
        """Put every cart back to its start. The states (count, 4), float32."""
        self.steps = 0
        self.state = self.generator.uniform(-START, START, (4, self.count))
        return self._observed()

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Push every cart. The states (count, 4), the rewards (count,), and whether the episode of each is over."""
        x, speed, angle, spin = self.state
        push = np.where(actions == 1, FORCE, -FORCE)
        mass, sine, cosine = CART_MASS + POLE_MASS, np.sin(angle), np.cos(angle)
        pull = (push + POLE_MASS * HALF_LENGTH * spin**2 * sine) / mass
        torque = GRAVITY * sine - cosine * pull
        angular = torque / (HALF_LENGTH * (4 / 3 - POLE_MASS * cosine**2 / mass))  # radians/s²
        linear = pull - POLE_MASS * HALF_LENGTH * angular * cosine / mass  # m/s²
        self.state = self.state + SECONDS * np.stack([speed, linear, spin, angular])
        self.steps += 1
        over = (np.abs(self.state[0]) > TRACK) | (np.abs(self.state[2]) > ANGLE) | (self.steps >= self.limit)
        return self._observed(), np.ones(self.count, np.float32), over

    def _observed(self) -> np.ndarray:
        return self.state.T.astype(np.float32)
