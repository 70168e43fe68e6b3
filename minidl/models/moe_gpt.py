"""GPT with mixtures of experts (Lepikhin et al. 2020, "GShard"; Fedus et al. 2021, "Switch Transformers").

Its options make of it Mixtral (Jiang et al. 2024), but for the slots: Mixtral's experts take all who come.
"""

from functools import partial

from minidl import nn
from minidl.creation import zeros
from minidl.models.examples import tokens
from minidl.models.gpt import EPS, GPTBlock, GPTParts
from minidl.models.latent_attention import LatentSizes
from minidl.nn.losses.loss import check_range
from minidl.parallel.experts import MixtureOfExperts
from minidl.validation import check_count


class BalancedEmbedding(nn.Module):
    """Tokens -> what `embedding` makes of them, and the sum of the load-balancing losses (batch,), as yet 0."""

    def __init__(self, embedding: nn.Module):
        self.embedding = embedding

    def forward(self, indices):
        x = self.embedding(indices)
        return x, zeros(x.shape[0], dtype=x.dtype, device=x.device)


class Balanced(nn.Module):
    """`block` of the first of two tensors; the second, the sum of the load-balancing losses, goes by."""

    def __init__(self, block: nn.Module):
        self.block = block
        self.class_group = getattr(block, "class_group", None)  # of the head

    def forward(self, given):
        x, balance = given
        return self.block(x), balance


class MixtureBlock(GPTBlock):
    """A block whose feed-forward layer is a mixture of experts, which adds its load-balancing loss to the sum.

    shared: a feed-forward layer beside it, for all tokens, or None.
    """

    def __init__(self, norm1, attention, norm2, feed_forward: MixtureOfExperts, dropout, shared: nn.Module | None):
        super().__init__(norm1, attention, norm2, feed_forward, dropout)
        self.shared = shared

    def forward(self, given):
        x, balance = given
        x = self.attend(x)
        normed = self.norm2(x)
        y, own = self.feed_forward(normed)
        if self.shared is not None:
            y = y + self.shared(normed)
        return x + self.dropout(y), balance + own


class MoELoss(nn.CrossEntropyLoss):
    """Cross-entropy of logits (batch, …, classes), and `balance` times the load-balancing losses that come with them.

    Output: the logits, and the sum of these losses (batch,) over the layers; a sample's counts as often as it has
    targets that count. So the mean is the mean cross-entropy plus `balance` times the mean load-balancing loss.
    """

    def __init__(self, balance: float = 0.01):
        super().__init__()
        check_range(self, "balance", balance)
        self.balance = balance

    def over_classes(self, split):
        return self.split_over(split)

    def sum_and_weight(self, output, target):
        logits, balance = output
        total, weight = super().sum_and_weight(logits, target)
        count = (target != self.ignore_index).to(balance.dtype).flatten(1).sum(1)  # (batch,)
        return total + self.balance * (balance * count).sum(), weight

    def right_answers(self, output, target):
        return super().right_answers(output[0], target)

    def extra_repr(self):
        return f"balance={self.balance}"


def moe_gpt(
    layers: int, hidden: int, heads: int, vocabulary: int, sequence: int, experts: int, mesh=None, dropout: float = 0.0,
    *, top_k: int = 2, capacity_factor: float = 1.25, every: int = 1, balance: float = 0.01,
    kv_heads: int | None = None, head_dim: int | None = None, positions: str = "learned",
    rotary_base: float = 10000.0, feed_forward: str = "gelu", inner: int | None = None, norm: str = "layer",
    eps: float = EPS, bias: bool = True, qkv_bias: bool | None = None, tied: bool = False, normed_heads: bool = False,
    window: int | None = None, full_every: int | None = None, latent: LatentSizes | None = None, dense_layers: int = 0,
    dense_inner: int | None = None, shared_inner: int | None = None, whole_experts: bool = False,
) -> nn.Sequential:  # fmt: skip
    """`gpt`, in every `every`-th block of which the feed-forward layer is a mixture of `experts`.

    Tokens (batch, sequence) -> logits (batch, sequence, vocabulary), and the sum of the load-balancing losses (batch,),
    which travels with the activations from block to block. The model carries the loss that takes both, in which the
    latter have the factor `balance`. top_k, capacity_factor: as of MixtureOfExperts, whose experts are spread over the
    mesh's expert axis. dense_layers: so many blocks at the beginning have no mixture. dense_inner: the inner features
    of the feed-forward layers that are no mixtures, `inner` unless given. shared_inner: those of one beside each
    mixture, through which every token goes (Dai et al. 2024, "DeepSeekMoE", section 3.2). whole_experts: the experts
    are spread over the tensor axis too, instead of being split over it. The other options are those of `gpt`;
    feed_forward and inner are the experts' too. ValueError where the sizes do not fit.
    """
    parts = GPTParts(locals())
    check_count("moe_gpt: every", every)
    check_count("moe_gpt: dense_layers", dense_layers, least=0)
    groups = parts.groups
    if mesh and mesh.size("context") > 1:
        raise ValueError(
            f"moe_gpt: context={mesh.size('context')} shares sequences, but the slots of an expert and its "
            "load-balancing loss are those of whole sequences"
        )

    for what, size in (("dense_inner", dense_inner), ("shared_inner", shared_inner)):
        if size is not None:
            check_count(f"moe_gpt: {what}", size)

    axes = ("expert", "tensor") if whole_experts else ("expert",)
    expert_group = mesh.group(*axes) if mesh else None

    def mixture(window: int | None) -> MixtureBlock:
        experts_of_it = MixtureOfExperts(
            hidden, parts.inner, experts, top_k, capacity_factor, expert_group, groups.tensor, bias, feed_forward,
            groups.sequence_parallel, whole_experts,
        )  # fmt: skip
        shared = None if shared_inner is None else parts.make_feed_forward(shared_inner)
        norms, attention = (parts.make_norm(), parts.make_norm()), parts.make_attention(window)
        return MixtureBlock(norms[0], attention, norms[1], experts_of_it, groups.dropout(dropout), shared)

    embedding, head = parts.ends()
    mixed = [place >= dense_layers and (place + 1) % every == 0 for place in range(layers)]

    def block(kind: tuple[bool, int | None]) -> nn.Module:
        is_mixture, window = kind
        return mixture(window) if is_mixture else Balanced(parts.block(window, dense_inner))

    blocks = nn.repeated_kinds(zip(mixed, parts.windows(layers), strict=True), block)
    model = nn.Sequential(BalancedEmbedding(embedding), *blocks, Balanced(head))
    model.example, model.loss = tokens(sequence, vocabulary), partial(MoELoss, balance)
    return model
