"""GPT: a decoder-only transformer (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").

Its options make of it the models that came after: LLaMA (Touvron et al. 2023) has rotary positions, a gated
feed-forward layer, RMSNorm and no biases.
"""

from minidl import nn
from minidl.creation import tensor
from minidl.models.attention import GroupedQueryAttention, SelfAttention, positions_here
from minidl.models.examples import tokens
from minidl.models.feed_forward import FeedForward, GatedFeedForward
from minidl.models.latent_attention import LatentAttention, LatentSizes
from minidl.models.transformer_groups import TransformerGroups
from minidl.parallel.layers import ColumnParallelLinear, VocabularyParallelEmbedding, useful
from minidl.validation import check_count

STD = 0.02  # of the embeddings at the start: Radford et al. 2018, section 4.1
POSITIONS = ("learned", "rotary")
FEED_FORWARDS = ("gelu", "relu", "swiglu")
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


class GPTParts:
    """What a GPT is made of.

    arguments: those of `gpt` by name, and others beside them: the `locals()` of what makes one will do. They become
    attributes, with the values that they have by default. ValueError for some that cannot work.
    """

    def __init__(self, arguments: dict):
        vars(self).update(arguments)
        for what, choices in (("positions", POSITIONS), ("feed_forward", FEED_FORWARDS), ("norm", NORMS)):
            if arguments[what] not in choices:
                raise ValueError(f"gpt: {what}={arguments[what]!r}, choose one of {', '.join(choices)}")
        self.kv_heads = self.heads if self.kv_heads is None else self.kv_heads
        self.inner = 4 * self.hidden if self.inner is None else self.inner
        self.qkv_bias = self.bias if self.qkv_bias is None else self.qkv_bias
        self.groups = TransformerGroups.of(self.mesh)
        ranks = self.groups.tensor.size if self.groups.tensor else 1
        sizes = self.hidden, self.heads, self.kv_heads, self.inner, self.vocabulary
        check_sizes("gpt", *sizes, ranks, self.head_dim)
        self.groups.check_sequence(self.sequence)
        self.head_dim = self.head_dim or self.hidden // self.heads
        self._check_attention()

    def windows(self, layers: int) -> list[int | None]:
        """That of each block's attention."""
        every = self.full_every or layers + 1
        return [None if place % every == 0 else self.window for place in range(1, layers + 1)]

    def make_norm(self) -> nn.Module:
        norm = nn.LayerNorm if self.norm == "layer" else nn.RMSNorm
        return self.groups.on_slices(norm(self.hidden, self.eps))

    def make_attention(self, window: int | None) -> nn.Module:
        hidden, heads, bias, groups = self.hidden, self.heads, self.bias, self.groups
        base = self.rotary_base if self.positions == "rotary" else None
        if self.latent is not None:
            return LatentAttention(hidden, heads, self.head_dim, self.latent, base, bias, groups, self.eps, window)
        options = {"head_dim": self.head_dim, "window": window, "qkv_bias": self.qkv_bias}
        if base is None and self.kv_heads == heads and not self.normed_heads:
            return SelfAttention(hidden, heads, True, bias, *groups, **options)
        options["normed_eps"] = self.eps if self.normed_heads else None
        return GroupedQueryAttention(hidden, heads, self.kv_heads, base, bias, *groups, **options)

    def make_feed_forward(self, inner: int | None = None) -> nn.Module:
        """inner: that of `gpt` unless given."""
        options = self.hidden, inner or self.inner, self.bias, self.groups.tensor, self.groups.sequence_parallel
        if self.feed_forward == "swiglu":
            return GatedFeedForward(*options)
        return FeedForward(*options, activation=self.feed_forward)

    def block(self, window: int | None = None, inner: int | None = None) -> GPTBlock:
        norms = self.make_norm(), self.make_norm()
        parts = norms[0], self.make_attention(window), norms[1], self.make_feed_forward(inner)
        return GPTBlock(*parts, self.groups.dropout(self.dropout))

    def ends(self) -> tuple[GPTEmbedding, GPTHead]:
        """The first and the last block of the chain."""
        longest = self.sequence if self.positions == "learned" else None
        embedding = GPTEmbedding(self.vocabulary, self.hidden, self.dropout, longest, self.groups)
        tensor, sequence_parallel = self.groups.tensor, self.groups.sequence_parallel
        linear = ColumnParallelLinear(
            self.hidden, self.vocabulary, tensor, bias=False, sequence_parallel=sequence_parallel
        )
        if self.tied:
            linear.weight = embedding.token.weight
        return embedding, GPTHead(self.make_norm(), linear)

    def _check_attention(self) -> None:
        if self.positions == "rotary" and self.head_dim % 2:
            raise ValueError(f"gpt: head_dim={self.head_dim} is odd, and rotary positions turn pairs of elements")
        for what in ("window", "full_every"):
            if getattr(self, what) is not None:
                check_count(f"gpt: {what}", getattr(self, what))
        if self.window is not None and (context := useful(self.groups.context)):
            raise ValueError(f"gpt: window={self.window}, but attention round {context} sees all keys before a query")
        if self.latent is None:
            return
        if self.positions != "rotary" or self.kv_heads != self.heads or self.normed_heads:
            raise ValueError("gpt: latent attention has positions='rotary', a key for each query, and no normed_heads")
        for name, size in self.latent._asdict().items():
            if size is not None:
                check_count(f"gpt: latent {name}", size)
        if self.latent.rotary_dim % 2:
            raise ValueError(f"gpt: latent rotary_dim={self.latent.rotary_dim} is odd: rotary positions turn pairs")


def gpt(
    layers: int, hidden: int, heads: int, vocabulary: int, sequence: int, mesh=None, dropout: float = 0.0, *,
    kv_heads: int | None = None, head_dim: int | None = None, positions: str = "learned",
    rotary_base: float = 10000.0, feed_forward: str = "gelu", inner: int | None = None, norm: str = "layer",
    eps: float = EPS, bias: bool = True, qkv_bias: bool | None = None, tied: bool = False, normed_heads: bool = False,
    window: int | None = None, full_every: int | None = None, latent: LatentSizes | None = None,
) -> nn.Sequential:  # fmt: skip
    """Embedding, `layers` transformer blocks, head: tokens (batch, sequence) -> logits (batch, sequence, vocabulary).

    dropout: on the embedding and on each residual branch. kv_heads: keys and values, each shared by heads / kv_heads
    queries; by default one a query. head_dim: the width of a head, hidden / heads unless given. positions: "learned",
    or "rotary" with `rotary_base`. feed_forward: "gelu", "relu" or the gated "swiglu", with `inner` features, by
    default 4 * hidden. norm: "layer" or "rms", with `eps`. bias: of the linear layers; qkv_bias: of those that make
    queries, keys and values, where it is another. tied: the head's matrix is the token embedding's. normed_heads:
    queries and keys are normalised. window: a position attends to itself and those before it, so many in all, but in
    every `full_every`-th block to all of them. latent: keys and values are made from a short vector, with these sizes;
    head_dim is then that of what has no positions.

    Heads, inner features and the vocabulary are split over the mesh's tensor axis: each rank has the logits of its part
    of the vocabulary. Sequences are split over the context axis, and attention goes round it as a ring. ValueError
    where the sizes do not divide.
    """
    parts = GPTParts(locals())
    embedding, head = parts.ends()
    model = nn.Sequential(embedding, *nn.repeated_kinds(parts.windows(layers), parts.block), head)
    model.example = tokens(sequence, vocabulary)
    return model


def check_sizes(
    name: str, hidden: int, heads: int, kv_heads: int, inner: int, vocabulary: int, ranks: int,
    head_dim: int | None = None,
) -> None:  # fmt: skip
    """ValueError unless the sizes of the transformer `name` can be split into heads, and these over `ranks`.

    head_dim: of a head, None for hidden / heads.
    """
    if head_dim is not None:
        check_count(f"{name}: head_dim", head_dim)
    for what, size, parts, count in (
        ("hidden", hidden, "heads", heads if head_dim is None else 1),
        ("heads", heads, "kv_heads", kv_heads),
        ("heads", heads, "tensor", ranks),
        ("kv_heads", kv_heads, "tensor", ranks),
        ("inner", inner, "tensor", ranks),
        ("vocabulary", vocabulary, "tensor", ranks),
    ):
        if count < 1 or size % count:
            raise ValueError(f"{name}: {what}={size} is not divisible by {parts}={count}")
