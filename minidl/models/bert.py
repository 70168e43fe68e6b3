"""BERT, an encoder of text (Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers")."""

from functools import partial

import numpy as np

from minidl import nn, ops, random
from minidl.creation import arange, default_device, tensor, zeros_like
from minidl.models.attention import SelfAttention
from minidl.models.examples import tokens
from minidl.models.feed_forward import FeedForward
from minidl.models.gpt import check_sizes
from minidl.ops.losses import IGNORE_INDEX
from minidl.parallel.layers import ColumnParallelLinear, VocabularyParallelEmbedding

STD = 0.02  # of the embeddings at the start: the paper's published code
EPS = 1e-12  # of the normalisations, likewise
SEGMENTS = 2  # a text is one sentence, or a pair


class BERTEmbedding(nn.Module):
    """Tokens (batch, sequence) -> (batch, sequence, hidden): embeddings of token, position and segment, normalised.

    Tokens (batch, 2, sequence) have their segments, 0 or 1, beside them; without these all are 0.
    """

    def __init__(self, vocabulary: int, sequence: int, hidden: int, dropout: float, group=None):
        self.token = VocabularyParallelEmbedding(vocabulary, hidden, group, STD)
        self.position = nn.Embedding(sequence, hidden, std=STD)
        self.segment = nn.Embedding(SEGMENTS, hidden, std=STD)
        self.norm, self.dropout = nn.LayerNorm(hidden, EPS), nn.Dropout(dropout)

    def forward(self, indices):
        text, segments = (indices, zeros_like(indices)) if indices.ndim == 2 else (indices[:, 0], indices[:, 1])
        position = self.position(arange(text.shape[1], device=text.device))
        return self.dropout(self.norm(self.token(text) + position + self.segment(segments)))


class BERTBlock(nn.Module):
    """norm(x + attention(x)), then norm(x + feed_forward(x)): normalised after each part."""

    def __init__(self, hidden: int, heads: int, dropout: float, group=None):
        self.attention = SelfAttention(hidden, heads, is_causal=False, group=group)
        self.norm1 = nn.LayerNorm(hidden, EPS)
        self.feed_forward = FeedForward(hidden, 4 * hidden, group=group, approximate="none")
        self.norm2 = nn.LayerNorm(hidden, EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = self.norm1(x + self.dropout(self.attention(x)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class BERTHead(nn.Module):
    """Guesses masked tokens: a layer of its own, then logits (batch, sequence, vocabulary).

    class_group: over which the vocabulary is split, None where every rank has all of it.
    """

    def __init__(self, hidden: int, linear: ColumnParallelLinear):
        self.dense, self.norm, self.linear = nn.Linear(hidden, hidden), nn.LayerNorm(hidden, EPS), linear
        self.class_group = linear.class_group

    def forward(self, x):
        return self.linear(self.norm(ops.gelu(self.dense(x))))


def bert(
    layers: int = 12, hidden: int = 768, heads: int = 12, vocabulary: int = 30522, sequence: int = 512, mesh=None,
    dropout: float = 0.1, tied: bool = False,
) -> nn.Sequential:  # fmt: skip
    """Embedding, `layers` blocks, head: tokens (batch, sequence) -> logits (batch, sequence, vocabulary).

    The defaults are BERT base. tied: the head's matrix is the token embedding's, as in the paper. Heads, inner features
    and the vocabulary are split over the mesh's tensor axis. ValueError where the sizes do not divide.
    """
    group = mesh.group("tensor") if mesh else None
    check_sizes("bert", hidden, heads, heads, 4 * hidden, vocabulary, group.size if group else 1)
    embedding = BERTEmbedding(vocabulary, sequence, hidden, dropout, group)
    linear = ColumnParallelLinear(hidden, vocabulary, group)
    if tied:
        linear.weight = embedding.token.weight
    blocks = nn.repeated(layers, lambda: BERTBlock(hidden, heads, dropout, group))
    model = nn.Sequential(embedding, *blocks, BERTHead(hidden, linear))
    model.example = partial(_masked_example, tokens(sequence, vocabulary), vocabulary)
    return model


def mask_tokens(
    text: np.ndarray, vocabulary: int, mask: int, generator: np.random.Generator, share: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    """Hide tokens to be guessed (section 3.1, task 1): inputs and targets, of the shape of `text`.

    A `share` of the tokens is chosen. Of these 80 % become the token `mask`, 10 % a random one, and 10 % stay. The
    targets are the chosen tokens, and IGNORE_INDEX elsewhere, which CrossEntropyLoss leaves out.
    """
    chosen, kind = generator.random(text.shape) < share, generator.random(text.shape)
    x = np.where(chosen & (kind < 0.8), mask, text)
    x = np.where(chosen & (kind >= 0.9), generator.integers(vocabulary, size=text.shape), x)
    return x, np.where(chosen, text, IGNORE_INDEX)


def _masked_example(example, vocabulary, batch):
    x, y = example(batch)
    if default_device() == "meta":
        return x, y
    generator = random.generator(0, "mask")
    return tuple(map(tensor, mask_tokens(x.numpy(), vocabulary, vocabulary - 1, generator)))
