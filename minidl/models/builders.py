"""Builders by name: a builder takes a mesh and builds the model; to have one allocates nothing."""

from functools import partial

from minidl.models.agent import agent
from minidl.models.alexnet import alexnet
from minidl.models.bert import bert
from minidl.models.changes import Builder, with_changes
from minidl.models.cnn import cifar_cnn, cnn
from minidl.models.from_config import from_config
from minidl.models.gpt import gpt
from minidl.models.inception import inception
from minidl.models.latent_attention import LatentSizes
from minidl.models.lenet import lenet
from minidl.models.lstm import lstm_classifier, lstm_language_model
from minidl.models.mlp import mlp
from minidl.models.moe_gpt import moe_gpt
from minidl.models.resnet import resnet
from minidl.models.vae import vae
from minidl.models.vgg import vgg

# LSTM on the Penn Treebank: Zaremba et al. 2014, section 4.1, medium and large. BERT: Devlin et al. 2019, section 3.
# GPT-2: Radford et al. 2019, table 2. GPT-3: Brown et al. 2020, table 2.1. The larger ones: Narayanan et al. 2021
# ("Megatron-LM", SC'21), table 1; 51,200 tokens are GPT-2's 50,257, padded. LLaMA: Touvron et al. 2023, table 2.
# Llama 2: Touvron et al. 2023 ("Llama 2"), table 1. Llama 3: Grattafiori et al. 2024 ("The Llama 3 Herd of Models"),
# table 3. Mixtral: Jiang et al. 2024, table 1. Qwen3: Qwen Team 2025 ("Qwen3 Technical Report"), table 2. gpt-oss:
# OpenAI 2025 ("gpt-oss-120b & gpt-oss-20b Model Card"), section 2. DeepSeek-V2 and -V3: DeepSeek-AI 2024, section 3.1.2
# of the one and 4.2 of the other. Kimi K2: Kimi Team 2025, table 2. Sizes that are not there, and rotary bases, are
# those of the published checkpoints.
#
# Not as published: experts have slots, of which there are `capacity_factor` times an even share, where these models'
# experts take all who come; routers weigh as MixtureOfExperts says, without DeepSeek's groups, factors and sigmoids and
# without gpt-oss's bias. gpt-oss has no attention sinks here, and the plain SwiGLU. DeepSeek-V3 does not predict a
# second token.
llama = partial(gpt, positions="rotary", feed_forward="swiglu", norm="rms", bias=False)
llama3 = partial(llama, vocabulary=128256, sequence=8192, kv_heads=8, rotary_base=500000.0)
llama_experts = partial(moe_gpt, positions="rotary", feed_forward="swiglu", norm="rms", bias=False)
qwen3_experts = partial(
    llama_experts, vocabulary=151936, sequence=32768, kv_heads=4, head_dim=128, normed_heads=True, experts=128, top_k=8,
    rotary_base=1000000.0,
)  # fmt: skip
deepseek = partial(
    llama_experts, sequence=4096, head_dim=128, latent=LatentSizes(1536, 512, rotary_dim=64, value_dim=128)
)
BUILDERS: dict[str, Builder] = {
    "mlp-digits": partial(mlp, sizes=(64, 128, 10)),
    "mlp-784": partial(mlp, sizes=(784, 1024, 1024, 10)),
    "cnn-digits": partial(cnn, channels=1, size=8),
    "cifar-cnn": cifar_cnn,
    "lenet": lenet,
    "alexnet": alexnet,
    "vgg11": partial(vgg, layers=11),
    "vgg16": partial(vgg, layers=16),
    "resnet-digits": partial(resnet, layers=18, channels=1, size=8, classes=10, width=16, stem="cifar"),
    "resnet18-cifar": partial(resnet, layers=18, size=32, classes=10, stem="cifar"),
    "resnet18": partial(resnet, layers=18),
    "resnet50": partial(resnet, layers=50),
    "resnet101": partial(resnet, layers=101),
    "resnet152": partial(resnet, layers=152),
    "inception3": inception,
    "lstm-digits": partial(lstm_classifier, inputs=8, steps=8, hidden=64),
    "lstm-mnist": lstm_classifier,
    "lstm-ptb": lstm_language_model,
    "lstm-ptb-large": partial(lstm_language_model, hidden=1500, dropout=0.65),
    "vae-digits": partial(vae, size=8, hidden=128, latent=8),
    "vae": vae,
    "agent-cartpole": agent,
    "bert-base": bert,
    "bert-large": partial(bert, layers=24, hidden=1024, heads=16),
    "gpt-tiny": partial(gpt, layers=4, hidden=128, heads=4, vocabulary=256, sequence=128),
    "gpt2-small": partial(gpt, layers=12, hidden=768, heads=12, vocabulary=50304, sequence=1024),
    "gpt2-medium": partial(gpt, layers=24, hidden=1024, heads=16, vocabulary=50304, sequence=1024),
    "gpt2-large": partial(gpt, layers=36, hidden=1280, heads=20, vocabulary=50304, sequence=1024),
    "gpt2-xl": partial(gpt, layers=48, hidden=1600, heads=25, vocabulary=50304, sequence=1024),
    "gpt3-6.7b": partial(gpt, layers=32, hidden=4096, heads=32, vocabulary=51200, sequence=2048),
    "gpt3-13b": partial(gpt, layers=40, hidden=5120, heads=40, vocabulary=51200, sequence=2048),
    "gpt3-175b": partial(gpt, layers=96, hidden=12288, heads=96, vocabulary=51200, sequence=2048),
    "gpt-530b": partial(gpt, layers=105, hidden=20480, heads=128, vocabulary=51200, sequence=2048),
    "gpt-1t": partial(gpt, layers=128, hidden=25600, heads=160, vocabulary=51200, sequence=2048),
    "llama-7b": partial(llama, layers=32, hidden=4096, heads=32, vocabulary=32000, sequence=2048, inner=11008),
    "llama-65b": partial(llama, layers=80, hidden=8192, heads=64, vocabulary=32000, sequence=2048, inner=22016),
    "llama2-70b": partial(
        llama, layers=80, hidden=8192, heads=64, vocabulary=32000, sequence=4096, inner=28672, kv_heads=8
    ),
    "llama3-8b": partial(llama3, layers=32, hidden=4096, heads=32, inner=14336),
    "llama3-70b": partial(llama3, layers=80, hidden=8192, heads=64, inner=28672),
    "llama3-405b": partial(llama3, layers=126, hidden=16384, heads=128, inner=53248),
    "moe-tiny": partial(moe_gpt, layers=4, hidden=128, heads=4, vocabulary=256, sequence=128, experts=4),
    # fmt: off
    "mixtral-8x7b": partial(
        llama_experts,
        layers=32,
        hidden=4096,
        heads=32,
        vocabulary=32000,
        sequence=32768,
        inner=14336,
        kv_heads=8,
        experts=8,
        top_k=2,
        rotary_base=1000000.0,
    ),
    "mixtral-8x22b": partial(
        llama_experts,
        layers=56,
        hidden=6144,
        heads=48,
        vocabulary=32768,
        sequence=65536,
        inner=16384,
        kv_heads=8,
        experts=8,
        top_k=2,
        rotary_base=1000000.0,
    ),
    "qwen3-30b-a3b": partial(qwen3_experts, layers=48, hidden=2048, heads=32, inner=768),
    "qwen3-235b-a22b": partial(qwen3_experts, layers=94, hidden=4096, heads=64, inner=1536),
    "gpt-oss-120b": partial(
        llama_experts,
        layers=36,
        hidden=2880,
        heads=64,
        head_dim=64,
        kv_heads=8,
        vocabulary=201088,
        sequence=4096,
        inner=2880,
        experts=128,
        top_k=4,
        bias=True,
        window=128,
        full_every=2,
        rotary_base=150000.0,
    ),
    "deepseek-v2": partial(
        deepseek,
        layers=60,
        hidden=5120,
        heads=128,
        vocabulary=102400,
        inner=1536,
        experts=160,
        top_k=6,
        dense_layers=1,
        dense_inner=12288,
        shared_inner=3072,
    ),
    "deepseek-v3": partial(
        deepseek,
        layers=61,
        hidden=7168,
        heads=128,
        vocabulary=129280,
        inner=2048,
        experts=256,
        top_k=8,
        dense_layers=3,
        dense_inner=18432,
        shared_inner=2048,
    ),
    "kimi-k2": partial(
        deepseek,
        layers=61,
        hidden=7168,
        heads=64,
        vocabulary=163840,
        inner=2048,
        experts=384,
        top_k=8,
        dense_layers=1,
        dense_inner=18432,
        shared_inner=2048,
        rotary_base=50000.0,
    ),
    # fmt: on
}


def builder(name: str, **changes) -> Builder:
    """The builder `mesh -> Sequential` of a model; without a mesh nothing is split.

    name: one of BUILDERS, or the path of a `config.json`, of which `from_config` tells. changes: other arguments of the
    model's function than BUILDERS has: `builder("gpt2-small", sequence=512)`. ValueError, which lists what there is,
    for an unknown name, or an argument that the model does not have.
    """
    if name in BUILDERS:
        return with_changes(name, BUILDERS[name], changes)
    if name.endswith(".json"):
        return from_config(name, **changes)
    raise ValueError(f"unknown model {name!r}: there are {', '.join(BUILDERS)}, or the path of a config.json")
