"""GPT: a decoder-only transformer (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners")."""

from minidl import nn, ops
from minidl.creation import arange
from minidl.models.examples import tokens
from minidl.parallel.layers import ColumnParallelLinear, RowParallelLinear

STD = 0.02  # of the embeddings at the start: Radford et al. 2018, section 4.1


class GPTEmbedding(nn.Module):
    """Tokens (batch, sequence) -> the sum of their embeddings and their positions' (batch, sequence, hidden)."""

    def __init__(self, vocabulary: int, sequence: int, hidden: int, dropout: float):
        self.token = nn.Embedding(vocabulary, hidden, std=STD)
        self.position = nn.Embedding(sequence, hidden, std=STD)
        self.dropout = nn.Dropout(dropout)

    def forward(self, indices):
        position = self.position(arange(indices.shape[1], device=indices.device))
        return self.dropout(self.token(indices) + position)


class CausalSelfAttention(nn.Module):
    """Every position attends to itself and to those before it; the heads are split over the group."""

    def __init__(self, hidden: int, heads: int, group=None):
        self.head_dim = hidden // heads
        self.qkv = ColumnParallelLinear(hidden, 3 * hidden, group, parts=3)
        self.projection = RowParallelLinear(hidden, hidden, group)

    def forward(self, x):
        batch, sequence, _ = x.shape
        qkv = self.qkv(x)  # (batch, sequence, 3 * local heads * head_dim)
        heads = qkv.shape[-1] // (3 * self.head_dim)
        qkv = qkv.reshape(batch, sequence, 3, heads, self.head_dim)
        return self.projection(ops.packed_attention(qkv, is_causal=True))  # (batch, sequence, hidden)


class GPTBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): normalised before each part, not after."""

    def __init__(self, hidden: int, heads: int, dropout: float, group=None):
        self.norm1 = nn.LayerNorm(hidden)
        self.attention = CausalSelfAttention(hidden, heads, group)
        self.norm2 = nn.LayerNorm(hidden)
        self.up = ColumnParallelLinear(hidden, 4 * hidden, group)
        self.down = RowParallelLinear(4 * hidden, hidden, group)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.down(ops.gelu(self.up(self.norm2(x)), "tanh")))


class GPTHead(nn.Module):
    """A last normalisation, and the logits (batch, sequence, vocabulary); its matrix is not tied to the embedding."""

    def __init__(self, hidden: int, vocabulary: int, group=None):
        self.norm = nn.LayerNorm(hidden)
        self.linear = ColumnParallelLinear(hidden, vocabulary, group, bias=False, gather_output=True)

    def forward(self, x):
        return self.linear(self.norm(x))


def gpt(
    layers: int, hidden: int, heads: int, vocabulary: int, sequence: int, mesh=None, dropout: float = 0.0
) -> nn.Sequential:
    """Embedding, `layers` transformer blocks, head: tokens (batch, sequence) -> logits (batch, sequence, vocabulary).

    Dropout acts on the embedding and on each residual branch. Heads, the blocks' inner features and the vocabulary are
    split over the mesh's tensor axis. ValueError where the sizes do not divide.
    """
    group = mesh.group("tensor") if mesh else None
    ranks = group.size if group else 1
    for what, size, parts in (
        ("hidden", hidden, "heads"),
        ("heads", heads, "tensor"),
        ("vocabulary", vocabulary, "tensor"),
    ):
        count = heads if parts == "heads" else ranks
        if count < 1 or size % count:
            raise ValueError(f"gpt: {what}={size} is not divisible by {parts}={count}")
    blocks = [GPTBlock(hidden, heads, dropout, group) for _ in range(layers)]
    model = nn.Sequential(
        GPTEmbedding(vocabulary, sequence, hidden, dropout), *blocks, GPTHead(hidden, vocabulary, group)
    )
    model.example = tokens(sequence, vocabulary)
    return model
