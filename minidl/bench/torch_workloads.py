"""The reference workloads of `bench train` in PyTorch, eager, written as its users write them.

tuned: what a user may set by hand beside: images with channels last in memory, and fused optimizers (the allocator's
settings are environment variables, see `train.py`). Only `side.py` imports this file, as a script, so that the process
does not load minidl.
"""

from collections.abc import Callable

import torch
from inputs import CHAIN, arrays, classes
from torch import nn
from torch.nn import functional


def _training(model, optimizer, x, y) -> Callable[[], object]:
    x, y = torch.as_tensor(x), torch.as_tensor(y)

    def step():
        optimizer.zero_grad()
        out = model(x)
        loss = functional.cross_entropy(out.reshape(-1, out.shape[-1]), y.reshape(-1))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def w1(tuned: bool):
    model = nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))
    (x,) = arrays((128, 784))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=tuned or None)
    return _training(model, optimizer, x, classes(10, 128))


def w2(tuned: bool):
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    x = torch.as_tensor(arrays((64, 3, 32, 32))[0])
    if tuned:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    return _training(model, torch.optim.Adam(model.parameters(), fused=tuned or None), x, classes(10, 64))


class LastStep(nn.Module):
    """An LSTM over sequences (batch, steps, features), and a linear layer on its last output."""

    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(28, 128, batch_first=True), nn.Linear(128, 10)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def w3(tuned: bool):
    model = LastStep()
    (x,) = arrays((128, 28, 28))
    return _training(model, torch.optim.SGD(model.parameters(), lr=0.01, fused=tuned or None), x, classes(10, 128))


class Block(nn.Module):
    """A transformer block, normalised before each part."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv, self.projection = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, 4 * hidden), nn.Linear(4 * hidden, hidden)

    def forward(self, x):  # (batch, sequence, hidden)
        batch, sequence, hidden = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, sequence, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], is_causal=True)
        x = x + self.projection(y.transpose(1, 2).reshape(batch, sequence, hidden))
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    """A decoder-only transformer with learned positions: tokens (batch, sequence) -> logits."""

    def __init__(self, layers: int, hidden: int, heads: int, vocabulary: int, sequence: int):
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, hidden), nn.Embedding(sequence, hidden)
        self.blocks = nn.Sequential(*(Block(hidden, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(hidden), nn.Linear(hidden, vocabulary, bias=False)

    def forward(self, tokens):  # (batch, sequence)
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
        return self.head(self.norm(self.blocks(x)))


def w4(tuned: bool):
    model = GPT(layers=4, hidden=128, heads=4, vocabulary=256, sequence=128)
    text = torch.as_tensor(classes(256, 16, 129))
    optimizer = torch.optim.AdamW(model.parameters(), fused=tuned or None)
    return _training(model, optimizer, text[:, :-1], text[:, 1:])


def w5(tuned: bool):
    x, change, offset = (torch.as_tensor(a) for a in arrays((10,), (10,), (10,)))
    scale = 1 + change * 1e-3
    x.requires_grad_()

    def step():
        y = x
        for _ in range(CHAIN // 2):
            y = y * scale
            y = y + offset
        y.backward(offset)

    return step


class ResidualBlock(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x))))))."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = self.norm1(self.conv1(x)).relu()
        return (self.norm2(self.conv2(y)) + x).relu()


def w6(tuned: bool):
    model = ResidualBlock(64)
    x, upstream = (torch.as_tensor(a) for a in arrays((32, 64, 32, 32), (32, 64, 32, 32)))
    if tuned:
        layout = torch.channels_last
        model, x, upstream = (value.to(memory_format=layout) for value in (model, x, upstream))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=tuned or None)
    x.requires_grad_()

    def step():
        optimizer.zero_grad()
        x.grad = None
        model(x).backward(upstream)
        optimizer.step()

    return step


BUILD = {"W1": w1, "W2": w2, "W3": w3, "W4": w4, "W5": w5, "W6": w6}
