"""Latent attention against a transcription of its equations in PyTorch."""

import numpy as np
import pytest

from minidl import models
from minidl.models.latent_attention import LatentSizes
from tests.models.oracle import assert_equals_torch

HIDDEN, HEADS, HEAD_DIM, BASE = 16, 4, 6, 10000.0
SIZES = LatentSizes(query_rank=10, kv_rank=7, rotary_dim=4, value_dim=5)


def transcription(torch, sizes):
    """Equations 9 to 19 of DeepSeek-V2 on a block's attention, positions as complex numbers."""
    F = torch.nn.functional

    def rotated(x):  # (batch, heads, sequence, rotary_dim)
        half = x.shape[-1] // 2
        angle = torch.outer(torch.arange(x.shape[-2]).double(), BASE ** (-torch.arange(half).double() / half))
        turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
        return torch.cat([turned.real, turned.imag], -1)

    def attention(x, p):
        batch, sequence, _ = x.shape
        short = x
        if sizes.query_rank:
            short = F.rms_norm(F.linear(x, p["query_down.weight"]), (sizes.query_rank,), p["query_norm.weight"], 1e-5)
        q = F.linear(short, p["query_up.weight"]).reshape(batch, sequence, HEADS, -1).transpose(1, 2)
        down = F.linear(x, p["kv_down.weight"])
        short = F.rms_norm(down[..., : sizes.kv_rank], (sizes.kv_rank,), p["kv_norm.weight"], 1e-5)
        kv = F.linear(short, p["kv_up.weight"]).reshape(batch, sequence, HEADS, -1).transpose(1, 2)
        k_rotary = rotated(down[:, None, :, sizes.kv_rank :]).expand(-1, HEADS, -1, -1)
        q = torch.cat([q[..., :HEAD_DIM], rotated(q[..., HEAD_DIM:])], -1)
        k = torch.cat([kv[..., :HEAD_DIM], k_rotary], -1)
        scores = q @ k.transpose(-1, -2) / (HEAD_DIM + sizes.rotary_dim) ** 0.5
        scores = scores.masked_fill(torch.ones(sequence, sequence).triu(1) > 0, -float("inf"))
        out = scores.softmax(-1) @ kv[..., HEAD_DIM:]
        return F.linear(out.transpose(1, 2).reshape(batch, sequence, -1), p["projection.weight"])

    return attention


@pytest.mark.parametrize("sizes", [SIZES, SIZES._replace(query_rank=None)], ids=["", "queries from x"])
def test_it_equals_its_transcription_in_pytorch(sizes):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
    options = dict(positions="rotary", norm="rms", bias=False, head_dim=HEAD_DIM, latent=sizes)
    layer = models.gpt(1, HIDDEN, HEADS, 12, 7, **options)[1].attention
    x = np.random.default_rng(1).standard_normal((3, 7, HIDDEN))
    assert_equals_torch(torch, layer, transcription(torch, sizes), x)
