"""GPT: a decoder-only transformer (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").

Its options make of it the models that came after: LLaMA (Touvron et al. 2023) has rotary positions, a gated
feed-forward layer, RMSNorm and no biases.
"""

from minidl import nn
from minidl.creation import tensor
from minidl.models.attention import GroupedQueryAttention, SelfAttention, positions_here
from minidl.models.examples import tokens
from minidl.models.feed_forward import FeedForward, GatedFeedForward
from minidl.models.transformer_groups import TransformerGroups
from minidl.parallel.layers import ColumnParallelLinear, VocabularyParallelEmbedding

STD = 0.02  # of the embeddings at the start: Radford et al. 2018, section 4.1
POSITIONS = ("learned", "rotary")
FEED_FORWARDS = ("gelu", "swiglu")
NORMS = ("layer", "rms")
EPS = 1e-5  # of the normalisations


class GPTEmbedding(nn.Module):
    """Tokens (batch, sequence) -> their embeddings (batch, sequence, hidden), of which a rank may have a slice.

    sequence: the longest one, to which learned embeddings of the positions are added; None for none.
    """

    def __init__(self, vocabulary: int, hidden: int, dropout: float, sequence: int | None, groups: TransformerGroups):
        self.groups = groups
        self.token = VocabularyParallelEmbedding(vocabulary, hidden, groups.tensor, STD, groups.sequence_parallel)
        self.position = groups.on_slices(nn.Embedding(sequence, hidden, std=STD)) if sequence else None
        self.dropout = groups.dropout(dropout)

    def forward(self, indices):
        x = self.token(indices)
        if self.position is not None:
            place = positions_here(indices.shape[1], self.groups.context)
            x = x + self.position(tensor(self.groups.slice_of(place), device=indices.device))
        return self.dropout(x)


class GPTBlock(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)): normalised before each part, not after."""

    def __init__(self, norm1, attention: nn.Module, norm2, feed_forward: nn.Module, dropout: nn.Dropout):
        self.norm1, self.attention = norm1, attention
        self.norm2, self.feed_forward = norm2, feed_forward
        self.dropout = dropout

    def forward(self, x):
        x = self.attend(x)
        return x + self.dropout(self.feed_forward(self.norm2(x)))

    def attend(self, x):
        return x + self.dropout(self.attention(self.norm1(x)))


class GPTHead(nn.Module):
    """A last normalisation, and the logits (batch, sequence, vocabulary).

    class_group: over which the vocabulary is split, None where every rank has all of it.
    """

    def __init__(self, norm: nn.Module, linear: ColumnParallelLinear):
        self.norm, self.linear = norm, linear
        self.class_group = linear.class_group

    def forward(self, x):
        return self.linear(self.norm(x))


def gpt(
    layers: int, hidden: int, heads: int, vocabulary: int, sequence: int, mesh=None, dropout: float = 0.0, *,
    kv_heads: int | None = None, positions: str = "learned", rotary_base: float = 10000.0, feed_forward: str = "gelu",
    inner: int | None = None, norm: str = "layer", bias: bool = True, tied: bool = False,
) -> nn.Sequential:  # fmt: skip
    """Embedding, `layers` transformer blocks, head: tokens (batch, sequence) -> logits (batch, sequence, vocabulary).

    dropout: on the embedding and on each residual branch. kv_heads: keys and values, each shared by heads / kv_heads
    queries; by default one a query. positions: "learned", or "rotary" with `rotary_base`. feed_forward: "gelu" or the
    gated "swiglu", with `inner` features, by default 4 * hidden. norm: "layer" or "rms". bias: of the linear layers.
    tied: the head's matrix is the token embedding's.

    Heads, inner features and the vocabulary are split over the mesh's tensor axis: each rank has the logits of its part
    of the vocabulary. Sequences are split over the context axis, and attention goes round it as a ring. ValueError
    where the sizes do not divide.
    """
    kv_heads, inner = heads if kv_heads is None else kv_heads, 4 * hidden if inner is None else inner
    groups = TransformerGroups.of(mesh)
    group = groups.tensor
    check_sizes("gpt", hidden, heads, kv_heads, inner, vocabulary, group.size if group else 1)
    groups.check_sequence(sequence)
    for what, given, choices in (
        ("positions", positions, POSITIONS), ("feed_forward", feed_forward, FEED_FORWARDS), ("norm", norm, NORMS)
    ):  # fmt: skip
        if given not in choices:
            raise ValueError(f"gpt: {what}={given!r}, choose one of {', '.join(choices)}")

    def make_norm() -> nn.Module:
        return groups.on_slices(nn.LayerNorm(hidden, EPS) if norm == "layer" else nn.RMSNorm(hidden, EPS))

    def make_attention() -> nn.Module:
        if positions == "learned" and kv_heads == heads:
            return SelfAttention(hidden, heads, True, bias, *groups)
        base = rotary_base if positions == "rotary" else None
        return GroupedQueryAttention(hidden, heads, kv_heads, base, bias, *groups)

    def make_block() -> GPTBlock:
        make_feed_forward = FeedForward if feed_forward == "gelu" else GatedFeedForward
        inner_layers = make_feed_forward(hidden, inner, bias, group, groups.sequence_parallel)
        return GPTBlock(make_norm(), make_attention(), make_norm(), inner_layers, groups.dropout(dropout))

    embedding = GPTEmbedding(vocabulary, hidden, dropout, sequence if positions == "learned" else None, groups)
    blocks = [make_block() for _ in range(layers)]
    linear = ColumnParallelLinear(hidden, vocabulary, group, bias=False, sequence_parallel=groups.sequence_parallel)
    if tied:
        linear.weight = embedding.token.weight
    model = nn.Sequential(embedding, *blocks, GPTHead(make_norm(), linear))
    model.example = tokens(sequence, vocabulary)
    return model


def check_sizes(name: str, hidden: int, heads: int, kv_heads: int, inner: int, vocabulary: int, ranks: int) -> None:
    """ValueError unless the sizes of the transformer `name` can be split into heads, and these over `ranks`."""
    for what, size, parts, count in (
        ("hidden", hidden, "heads", heads),
        ("heads", heads, "kv_heads", kv_heads),
        ("heads", heads, "tensor", ranks),
        ("kv_heads", kv_heads, "tensor", ranks),
        ("inner", inner, "tensor", ranks),
        ("vocabulary", vocabulary, "tensor", ranks),
    ):
        if count < 1 or size % count:
            raise ValueError(f"{name}: {what}={size} is not divisible by {parts}={count}")
