"""Initialisation: recipes that draw a whole parameter from a generator, in float64, before it is cast and cut.

A parameter keeps its recipe, so that a rank can make only the parameters of its stage and only its shard of each. Each
recipe `name(...)` has PyTorch's `name_(parameter, ...)` beside it, which gives a parameter that recipe and draws it.
"""

import inspect
import math
from collections.abc import Callable

import numpy as np

from minidl import random
from minidl.tensor import Tensor

Recipe = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

GAINS = {
    "linear": 1.0, "conv1d": 1.0, "conv2d": 1.0, "conv_transpose2d": 1.0, "sigmoid": 1.0, "tanh": 5 / 3,
    "relu": math.sqrt(2), "selu": 3 / 4,
}  # fmt: skip


def constant(value: float) -> Recipe:
    return lambda generator, shape: np.full(shape, value)


def zeros() -> Recipe:
    return constant(0.0)


def ones() -> Recipe:
    return constant(1.0)


def uniform(a: float = 0.0, b: float = 1.0) -> Recipe:
    """Uniform in [a, b)."""
    return lambda generator, shape: generator.uniform(a, b, shape)


def normal(mean: float = 0.0, std: float = 1.0) -> Recipe:
    return lambda generator, shape: generator.normal(mean, std, shape)


def trunc_normal(mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Recipe:
    """Normal, drawn again until it lies in [a, b]; ValueError where that would take for ever."""
    if not (a < b and a < mean + 4 * std and b > mean - 4 * std):
        raise ValueError(f"trunc_normal: [{a}, {b}] must hold numbers within 4 std={std} of mean={mean}")

    def draw(generator, shape):
        values = generator.normal(mean, std, shape)
        while (outside := (values < a) | (values > b)).any():
            values[outside] = generator.normal(mean, std, outside.sum())
        return values

    return draw


def xavier_uniform(gain: float = 1.0) -> Recipe:
    """Uniform within gain sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010, equation 16)."""
    return _uniform_of_std(lambda shape: gain * math.sqrt(2 / sum(fans(shape))))


def xavier_normal(gain: float = 1.0) -> Recipe:
    """Normal of variance gain^2 2 / (fan_in + fan_out) (Glorot and Bengio 2010, equation 12)."""
    return _normal_of_std(lambda shape: gain * math.sqrt(2 / sum(fans(shape))))


def kaiming_uniform(a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Recipe:
    """Uniform of the variance of `kaiming_normal`."""
    return _uniform_of_std(_kaiming_std(a, mode, nonlinearity))


def kaiming_normal(a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu") -> Recipe:
    """Normal of variance gain^2 / fan (He et al. 2015, "Delving Deep into Rectifiers", equations 10, 14 and 15).

    a: the slope of leaky_relu. mode: "fan_in" keeps the variance forward, "fan_out" backward.
    """
    return _normal_of_std(_kaiming_std(a, mode, nonlinearity))


def orthogonal(gain: float = 1.0) -> Recipe:
    """Rows, or if there are more of them columns, orthonormal, times gain (Saxe, McClelland and Ganguli 2013).

    All dimensions but the first are one. Q of the QR decomposition of normal numbers is uniform among the orthogonal
    matrices once R's diagonal is made positive (Mezzadri 2006).
    """

    def draw(generator, shape):
        rows, columns = shape[0], _matrix_width("orthogonal", shape)
        q, r = np.linalg.qr(generator.normal(size=(max(rows, columns), min(rows, columns))))
        q *= np.sign(np.diag(r))
        return gain * (q if rows >= columns else q.T).reshape(shape)

    return draw


def fan_in_uniform(fan_in: int) -> Recipe:
    """PyTorch's default for linear and convolution layers: uniform within 1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
    return uniform(-bound, bound)


def zero_row(recipe: Recipe, row: int) -> Recipe:
    """`recipe`, then zeros in the row `row`."""

    def draw(generator, shape):
        values = recipe(generator, shape)
        values[row] = 0
        return values

    return draw


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a layer's weights must be larger for the nonlinearity after it; param: leaky_relu's slope."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in GAINS:
        raise ValueError(f"nonlinearity={nonlinearity!r}, it must be one of {', '.join([*GAINS, 'leaky_relu'])}")
    return GAINS[nonlinearity]


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many inputs an output has and how many outputs an input has, in a weight (out, in, *kernel)."""
    width = _matrix_width("fans", shape)
    return width, shape[0] * width // max(1, shape[1])


def _matrix_width(what: str, shape: tuple[int, ...]) -> int:
    if len(shape) < 2:
        raise ValueError(f"{what}: the parameter has shape {tuple(shape)}, two dimensions at least are needed")
    return math.prod(shape[1:])


def _kaiming_std(a, mode, nonlinearity):
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f'mode={mode!r}, it must be "fan_in" or "fan_out"')
    gain = calculate_gain(nonlinearity, a)
    return lambda shape: gain / math.sqrt(max(1, fans(shape)[mode == "fan_out"]))


def _uniform_of_std(std):
    """Uniform, of the standard deviation std(shape)."""

    def draw(generator, shape):
        bound = math.sqrt(3) * std(shape)
        return generator.uniform(-bound, bound, shape)

    return draw


def _normal_of_std(std):
    return lambda generator, shape: generator.normal(0, std(shape), shape)


def _in_place(make: Callable[..., Recipe]) -> Callable[..., Tensor]:
    """The function name_(parameter, ...) of the recipe name(...)."""

    def initialise(parameter, *args, **options):
        if not hasattr(parameter, "materialize"):
            raise TypeError(f"{initialise.__name__} needs a Parameter, not a {type(parameter).__name__}")
        parameter.init = make(*args, **options)
        if parameter.device != "meta":
            parameter.materialize(random.default_generator())
        return parameter

    initialise.__name__ = initialise.__qualname__ = f"{make.__name__}_"
    initialise.__doc__, recipe = make.__doc__, inspect.signature(make)
    first = inspect.Parameter("parameter", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    initialise.__signature__ = recipe.replace(parameters=[first, *recipe.parameters.values()])
    return initialise


constant_, zeros_, ones_ = _in_place(constant), _in_place(zeros), _in_place(ones)
uniform_, normal_, trunc_normal_ = _in_place(uniform), _in_place(normal), _in_place(trunc_normal)
xavier_uniform_, xavier_normal_ = _in_place(xavier_uniform), _in_place(xavier_normal)
kaiming_uniform_, kaiming_normal_ = _in_place(kaiming_uniform), _in_place(kaiming_normal)
orthogonal_ = _in_place(orthogonal)
