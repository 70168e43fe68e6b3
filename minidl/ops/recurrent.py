"""Recurrent layers (Elman's network, LSTM, GRU): one op for a sequence, and the cells of which it is the composition.

The sizes are PyTorch's, time first: x (time, batch, inputs), w_ih (gates * width, inputs), w_hh (gates * width, width),
b_ih and b_hh (gates * width,), states (batch, width), each y (time, batch, width).
"""

from minidl.double_backward import tensor_kernel
from minidl.op import Op
from minidl.ops.activation import relu, sigmoid, tanh
from minidl.ops.arithmetic import add
from minidl.ops.joining import cat, split, stack
from minidl.ops.matmul import linear
from minidl.ops.shape import cast, reshape
from minidl.tensor import Tensor

# The cells: one step


def rnn_cell(x, h, w_ih, w_hh, b_ih=None, b_hh=None, nonlinearity: str = "tanh") -> Tensor:
    """h' = nonlinearity(x w_ih^T + b_ih + h w_hh^T + b_hh), "tanh" or "relu" (Elman 1990)."""
    inner = linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh)
    return tanh(inner) if nonlinearity == "tanh" else relu(inner)


def lstm_cell(x, state: tuple[Tensor, Tensor], w_ih, w_hh, b_ih=None, b_hh=None) -> tuple[Tensor, Tensor]:
    """Long short-term memory with a forget gate, state (h, c) (Hochreiter and Schmidhuber 1997, Gers et al. 2000)."""
    h, c = state
    gates = linear(x, w_ih, b_ih) + linear(h, w_hh, b_hh)  # (batch, 4 * width)
    i, f, g, o = split(gates, gates.shape[-1] // 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def gru_cell(x, h, w_ih, w_hh, b_ih=None, b_hh=None) -> Tensor:
    """Gated recurrent unit (Cho et al. 2014); as in PyTorch, r acts on the product of h and not on h."""
    from_x, from_h = linear(x, w_ih, b_ih), linear(h, w_hh, b_hh)  # (batch, 3 * width)
    width = h.shape[-1]
    r, z = split(sigmoid(from_x[..., : 2 * width] + from_h[..., : 2 * width]), width, -1)
    n = tanh(from_x[..., 2 * width :] + r * from_h[..., 2 * width :])
    return (1 - z) * n + z * h


# The sequences


class Recurrent(Op):
    """What the ops of sequences share: x, w_ih, w_hh, a bias, and h0 if there is one, are kept under these names."""

    def before(self):
        """The h of the step before each (time, batch, width), by kernel calls."""
        k, y = self.kernels, self.y
        first = k.full(y.shape[1:], 0, y.dtype) if self.h0 is None else self.h0
        earlier = k.index(y, (slice(0, self.x.shape[0] - 1),))
        return k.concatenate([k.reshape(first, (1, *first.shape)), earlier], 0)


def through_products(from_x, from_h, x, w_ih, y, h0):
    """The gradients of x, w_ih, w_hh, from those of each step's products with x and with h, the last step first."""
    from_x, from_h = stack(from_x[::-1]), stack(from_h[::-1])  # (time, batch, rows)
    time, batch, rows = from_x.shape
    grad_ih = reshape(from_x, time * batch, rows).T @ reshape(x, time * batch, x.shape[2])
    count = (time - 1) * batch  # at the first step h is h0
    grad_hh = reshape(from_h[1:], count, rows).T @ reshape(y[: time - 1], count, y.shape[2])
    if h0 is not None:
        grad_hh = grad_hh + from_h[0].T @ h0
    return from_x @ w_ih, grad_ih, grad_hh, from_x.sum((0, 1)), from_h.sum((0, 1))


class RNN(Recurrent):
    """y of a sequence of `rnn_cell`."""

    def __init__(self, nonlinearity: str):
        self.nonlinearity = nonlinearity

    def forward(self, x, w_ih, w_hh, bias, h0=None):
        k, self.x, self.w_ih, self.w_hh, self.h0 = self.kernels, x, w_ih, w_hh, h0
        self.y = k.rnn(k.linear(x, w_ih, None), w_hh, bias, h0, self.nonlinearity)
        return self.y

    def backward(self, grad):
        states, need_x = (self.h0, self.y, self.nonlinearity), self.needs[0] is not None
        grads = self.kernels.rnn_grad(grad, self.x, self.w_ih, self.w_hh, *states, need_x)
        return grads[: len(self.needs)]


@tensor_kernel
def rnn_grad(grad, x, w_ih, w_hh, h0, y, nonlinearity, need_x):
    inner, carried = [], 0
    for t in reversed(range(len(y))):
        slope = 1 - y[t] * y[t] if nonlinearity == "tanh" else cast(y[t] > 0, y.dtype)
        inner.append((grad[t] + carried) * slope)
        carried = inner[-1] @ w_hh
    *grads, _ = through_products(inner, inner, x, w_ih, y, h0)
    return *grads, carried


class LSTM(Recurrent):
    """y of a sequence of `lstm_cell`, and as one more row the last c: (time + 1, batch, width)."""

    def forward(self, x, w_ih, w_hh, bias, h0=None, c0=None):
        k, self.x, self.w_ih, self.w_hh, self.bias, self.h0, self.c0 = self.kernels, x, w_ih, w_hh, bias, h0, c0
        self.gates = k.linear(x, w_ih, None)  # (time, batch, 4 * width)
        self.y, self.cells = k.lstm(self.gates, w_hh, bias, h0, c0)
        return self.y

    def recompute_saved(self):
        k = self.kernels
        inner = k.add(k.add(k.linear(self.x, self.w_ih, None), k.linear(self.before(), self.w_hh, None)), self.bias)
        width = self.y.shape[2]
        i, f, g, o = (k.slice_last(inner, n * width, width) for n in range(4))
        i, f, g, o = k.sigmoid(i), k.sigmoid(f), k.tanh(g), k.sigmoid(o)
        self.gates = k.concatenate([i, f, g, o], 2)
        new, cells = k.multiply(i, g), []
        cell = k.full(self.y.shape[1:], 0, self.y.dtype) if self.c0 is None else self.c0
        for t in range(self.x.shape[0]):
            cell = k.add(k.multiply(k.index(f, (t,)), cell), k.index(new, (t,)))
            cells.append(k.reshape(cell, (1, *cell.shape)))
        self.cells = k.concatenate(cells, 0)

    def backward(self, grad):
        states, need_x = (self.h0, self.c0, self.y, self.gates, self.cells), self.needs[0] is not None
        grads = self.kernels.lstm_grad(grad, self.x, self.w_ih, self.w_hh, *states, need_x)
        return grads[: len(self.needs)]


@tensor_kernel
def lstm_grad(grad, x, w_ih, w_hh, h0, c0, y, gates, cells, need_x):
    inner, carried, grad_cell = [], 0, grad[-1]
    for t in reversed(range(len(gates))):
        i, f, g, o = split(gates[t], cells.shape[2], -1)
        before = cells[t - 1] if t else 0 * cells[0] if c0 is None else c0
        grad_hidden, squashed = grad[t] + carried, tanh(cells[t])
        grad_cell = grad_cell + grad_hidden * o * (1 - squashed * squashed)
        di, df = grad_cell * g * i * (1 - i), grad_cell * before * f * (1 - f)
        dg, do = grad_cell * i * (1 - g * g), grad_hidden * squashed * o * (1 - o)
        inner.append(cat([di, df, dg, do], -1))
        carried, grad_cell = inner[-1] @ w_hh, grad_cell * f
    *grads, _ = through_products(inner, inner, x, w_ih, y, h0)
    return *grads, carried, grad_cell


class GRU(Recurrent):
    """y of a sequence of `gru_cell`."""

    def forward(self, x, w_ih, w_hh, b_ih, b_hh, h0=None):
        k, self.x, self.w_ih, self.w_hh, self.b_ih, self.b_hh, self.h0 = self.kernels, x, w_ih, w_hh, b_ih, b_hh, h0
        self.gates = k.linear(x, w_ih, b_ih)  # (time, batch, 3 * width)
        self.y, self.parts = k.gru(self.gates, w_hh, b_hh, h0)
        return self.y

    def recompute_saved(self):
        k, width = self.kernels, self.y.shape[2]
        from_x, from_h = k.linear(self.x, self.w_ih, self.b_ih), k.linear(self.before(), self.w_hh, self.b_hh)
        self.parts = k.slice_last(from_h, 2 * width, width)
        both = k.sigmoid(k.add(k.slice_last(from_x, 0, 2 * width), k.slice_last(from_h, 0, 2 * width)))
        r = k.slice_last(both, 0, width)
        n = k.tanh(k.add(k.slice_last(from_x, 2 * width, width), k.multiply(r, self.parts)))
        self.gates = k.concatenate([both, n], 2)

    def backward(self, grad):
        states, need_x = (self.h0, self.y, self.gates, self.parts), self.needs[0] is not None
        grads = self.kernels.gru_grad(grad, self.x, self.w_ih, self.w_hh, *states, need_x)
        return grads[: len(self.needs)]


@tensor_kernel
def gru_grad(grad, x, w_ih, w_hh, h0, y, gates, parts, need_x):
    from_x, from_h, carried = [], [], 0
    for t in reversed(range(len(y))):
        r, z, n = split(gates[t], y.shape[2], -1)
        before = y[t - 1] if t else 0 * y[0] if h0 is None else h0
        grad_hidden = grad[t] + carried
        dn = grad_hidden * (1 - z) * (1 - n * n)
        dr, dz = dn * parts[t] * r * (1 - r), grad_hidden * (before - n) * z * (1 - z)
        from_x.append(cat([dr, dz, dn], -1))
        from_h.append(cat([dr, dz, dn * r], -1))
        carried = grad_hidden * z + from_h[-1] @ w_hh
    return *through_products(from_x, from_h, x, w_ih, y, h0), carried


def rnn(x, w_ih, w_hh, b_ih=None, b_hh=None, h0=None, nonlinearity: str = "tanh") -> Tensor:
    """y of a sequence of `rnn_cell`; h0 is zero unless given."""
    _check("rnn", 1, x, w_ih, w_hh, h0)
    states = () if h0 is None else (h0,)
    return RNN(nonlinearity)(x, w_ih, w_hh, add(*_biases(w_hh, b_ih, b_hh)), *states)


def lstm(x, w_ih, w_hh, b_ih=None, b_hh=None, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """y and the last c of a sequence of `lstm_cell`; the state (h0, c0) is zero unless given."""
    _check("lstm", 4, x, w_ih, w_hh, *(state or ()))
    y = LSTM()(x, w_ih, w_hh, add(*_biases(w_hh, b_ih, b_hh)), *(state or ()))
    return y[:-1], y[-1]


def gru(x, w_ih, w_hh, b_ih=None, b_hh=None, h0=None) -> Tensor:
    """y of a sequence of `gru_cell`; h0 is zero unless given."""
    _check("gru", 3, x, w_ih, w_hh, h0)
    return GRU()(x, w_ih, w_hh, *_biases(w_hh, b_ih, b_hh), *(() if h0 is None else (h0,)))


def _biases(w_hh, *biases):
    """The biases, zeros for one that is None."""
    return [Tensor(w_hh.kernels.full(w_hh.shape[:1], 0, w_hh.dtype)) if b is None else b for b in biases]


def _check(name, gates, x, w_ih, w_hh, *states):
    """ValueError unless the sizes match."""
    width = w_hh.shape[-1]
    if x.ndim != 3 or x.shape[2] != w_ih.shape[-1]:
        raise ValueError(f"{name} needs x (time, batch, {w_ih.shape[-1]}), not {x.shape}")
    if x.shape[0] == 0:
        raise ValueError(f"{name} needs a step at least, x has shape {x.shape}")
    for what, weight in (("w_ih", w_ih), ("w_hh", w_hh)):
        if weight.shape[0] != gates * width:
            raise ValueError(f"{name}: {what} has shape {weight.shape}, it needs {gates * width} rows")
    for state in states:
        if state is not None and state.shape != (x.shape[1], width):
            raise ValueError(f"{name}: a state has shape {state.shape}, it must be {(x.shape[1], width)}")
