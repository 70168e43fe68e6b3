"""Recurrent layers, with PyTorch's arguments, parameter names, shapes and order of gates."""

from minidl import ops
from minidl.creation import zeros
from minidl.nn import init
from minidl.nn.module import Module
from minidl.nn.parameter import Parameter
from minidl.ops.dropout import check_fraction
from minidl.tensor import Tensor


def make_weights(module: Module, gates: int, inputs: int, width: int, bias: bool, suffix: str = "") -> None:
    """Give the module the weights of one layer in one direction, uniform within 1 / sqrt(width)."""
    recipe = init.fan_in_uniform(width)
    setattr(module, f"weight_ih{suffix}", Parameter((gates * width, inputs), init=recipe))
    setattr(module, f"weight_hh{suffix}", Parameter((gates * width, width), init=recipe))
    for name in "bias_ih", "bias_hh":
        setattr(module, name + suffix, Parameter((gates * width,), init=recipe) if bias else None)


def get_weights(module: Module, suffix: str = "") -> list[Tensor | None]:
    return [getattr(module, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]


class Recurrent(Module):
    """What RNN, LSTM and GRU share: layers over directions over time.

    Calling one on x (time, batch, input_size), or (batch, time, input_size) with `batch_first`, or (time, input_size),
    gives the output of the last layer, (time, batch, directions * hidden_size) in the order of x, and the last states
    of all layers and directions, (num_layers * directions, batch, hidden_size). Dropout acts between layers.
    """

    gates: int  # how many there are
    states = 1  # how many make up the state of a layer

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False,
    ):  # fmt: skip
        _check_sizes(self, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        for what, flag in (("bias", bias), ("batch_first", batch_first), ("bidirectional", bidirectional)):
            if not isinstance(flag, bool):
                raise TypeError(f"{type(self).__name__}: {what}={flag!r} is no bool")
        check_fraction(dropout)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.batch_first, self.dropout, self.bidirectional = batch_first, dropout, bidirectional
        self.directions = ("", "_reverse") if bidirectional else ("",)
        for layer in range(num_layers):
            inputs = hidden_size * len(self.directions) if layer else input_size
            for direction in self.directions:
                make_weights(self, self.gates, inputs, hidden_size, bias, f"_l{layer}{direction}")

    def run(self, x, weights, state):
        """One layer in one direction: y (time, batch, hidden_size), and the last states (batch, hidden_size)."""
        raise NotImplementedError(f"{type(self).__name__} has no run")

    def forward(self, x, hx=None):
        name, batched = type(self).__name__, x.ndim == 3
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise ValueError(f"{name} needs x (time, batch, {self.input_size}) or unbatched, not {x.shape}")
        states = () if hx is None else hx if self.states > 1 else (hx,)
        if not all(isinstance(state, Tensor) for state in states):
            raise TypeError(f"{name} needs {self.states} initial states that are tensors, not {states}")
        if not batched:
            x, states = x.unsqueeze(1), [state.unsqueeze(1) for state in states]
        elif self.batch_first:
            x = x.transpose(0, 1)
        self._check_states(states, x.shape[1])
        last = [[] for _ in range(self.states)]
        for layer in range(self.num_layers):
            if layer and self.dropout and self.training:  # the masks are keyed by the sample, the first dimension
                x = ops.dropout(x.transpose(0, 1), self.dropout).transpose(0, 1)
            outputs = []
            for direction in self.directions:
                number = layer * len(self.directions) + len(outputs)
                y, *final = self.run(
                    ops.flip(x, 0) if direction else x,
                    get_weights(self, f"_l{layer}{direction}"),
                    [state[number] for state in states],
                )
                outputs.append(ops.flip(y, 0) if direction else y)
                for kind, state in zip(last, final, strict=True):
                    kind.append(state)
            x = ops.cat(outputs, -1) if self.bidirectional else outputs[0]
        # (layers * directions, batch, hidden_size); of one state no copy is made
        last = [ops.stack(kind) if len(kind) > 1 else kind[0].unsqueeze(0) for kind in last]
        if not batched:
            x, last = x.squeeze(1), [state.squeeze(1) for state in last]
        elif self.batch_first:
            x = x.transpose(0, 1)
        return x, tuple(last) if self.states > 1 else last[0]

    def _check_states(self, states, batch):
        shape = (self.num_layers * len(self.directions), batch, self.hidden_size)
        if len(states) not in (0, self.states) or any(state.shape != shape for state in states):
            given = ", ".join(str(state.shape) for state in states)
            raise ValueError(f"{type(self).__name__} needs {self.states} initial states of {shape}, not of {given}")

    def extra_repr(self):
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (("num_layers", 1), ("batch_first", False), ("dropout", 0), ("bidirectional", False)):
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text


class RNN(Recurrent):
    """Elman's network: h_t = nonlinearity(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), "tanh" or "relu"; state h."""

    gates = 1

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
    ):  # fmt: skip
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        self.nonlinearity = check_nonlinearity("RNN", nonlinearity)

    def run(self, x, weights, state):
        y = ops.rnn(x, *weights, *(state or [None]), self.nonlinearity)
        return y, y[-1]


class LSTM(Recurrent):
    """Long short-term memory; the order of the gates is i, f, g, o; the state is (h, c)."""

    gates = 4
    states = 2

    def run(self, x, weights, state):
        y, c = ops.lstm(x, *weights, state)
        return y, y[-1], c


class GRU(Recurrent):
    """Gated recurrent unit; the order of the gates is r, z, n; state h."""

    gates = 3

    def run(self, x, weights, state):
        y = ops.gru(x, *weights, *state)
        return y, y[-1]


def _check_sizes(module: Module, **sizes: int) -> None:
    for what, size in sizes.items():
        if size < 1:
            raise ValueError(f"{type(module).__name__}: {what}={size}, it must be at least 1")


def check_nonlinearity(name: str, nonlinearity: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f'{name}: nonlinearity={nonlinearity!r}, it must be "tanh" or "relu"')
    return nonlinearity


class RecurrentCell(Module):
    """What RNNCell, LSTMCell and GRUCell share: one step of a batch x (batch, input_size), or of one (input_size,).

    The states are (batch, hidden_size), or (hidden_size,), zero unless given. ValueError for other shapes.
    """

    gates: int
    states = 1  # how many make up the state

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True):
        _check_sizes(self, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size = input_size, hidden_size
        make_weights(self, self.gates, input_size, hidden_size, bias)

    def start(self, x, hx) -> tuple[Tensor, ...]:
        """The states before x: `hx` if it fits, zeros for None."""
        name, shape = type(self).__name__, (*x.shape[:-1], self.hidden_size)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ValueError(f"{name} needs x (batch, {self.input_size}) or ({self.input_size},), not {x.shape}")
        if hx is None:
            return (zeros(shape, dtype=x.dtype, device=x.device),) * self.states
        states = tuple(hx) if self.states > 1 and isinstance(hx, tuple | list) else (hx,)
        if len(states) != self.states or not all(isinstance(state, Tensor) for state in states):
            raise TypeError(f"{name} needs a state of {self.states} tensors, not {hx!r}")
        if any(state.shape != shape for state in states):
            given = ", ".join(str(state.shape) for state in states)
            raise ValueError(f"{name} needs a state of {shape} for x of {x.shape}, not of {given}")
        return states

    def extra_repr(self):
        return f"{self.input_size}, {self.hidden_size}"


class RNNCell(RecurrentCell):
    """One step of an RNN: x and h to the next h."""

    gates = 1

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh"):
        super().__init__(input_size, hidden_size, bias)
        self.nonlinearity = check_nonlinearity("RNNCell", nonlinearity)

    def forward(self, x, hx=None):
        return ops.rnn_cell(x, *self.start(x, hx), *get_weights(self), self.nonlinearity)


class LSTMCell(RecurrentCell):
    """One step of an LSTM: x and (h, c) to the next (h, c)."""

    gates = 4
    states = 2

    def forward(self, x, hx=None):
        return ops.lstm_cell(x, self.start(x, hx), *get_weights(self))


class GRUCell(RecurrentCell):
    """One step of a GRU: x and h to the next h."""

    gates = 3

    def forward(self, x, hx=None):
        return ops.gru_cell(x, *self.start(x, hx), *get_weights(self))
