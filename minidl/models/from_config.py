"""Builders from the `config.json` that Hugging Face's models have beside their weights.

What cannot be built is refused by its key and value. Not asked for is what changes no shapes: how weights begin,
dropout of attention weights, how routers score and group experts, limits of activations, attention sinks, numbers kept
in fewer bits, and modules that predict a second token.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial

from minidl.models.bert import bert
from minidl.models.changes import Builder, with_changes
from minidl.models.config_reader import Config
from minidl.models.gpt import gpt
from minidl.models.latent_attention import LatentSizes
from minidl.models.moe_gpt import moe_gpt


def from_config(config: str | os.PathLike | Mapping, **changes) -> Builder:
    """The builder `mesh -> Sequential` of the model that a `config.json` describes: its path, or what it holds.

    changes: other arguments of the model's function than the config gives: `sequence=4096`, as the longest there is may
    be long; `vocabulary=50304`, where ranks that share it must divide it; `layers=2`.

    Positions that "yarn" or "llama3" stretched after training are those of before: sequences are at most as long as
    then. ValueError, in one sentence, for what cannot be built, and for a change that the model's function does not
    have; OSError for a file that cannot be read.
    """
    read = Config(config)
    name = (read.list("architectures") or [None])[0]
    if not isinstance(name, str) or name not in ARCHITECTURES:
        read.refuse("architectures", name, f"one of {', '.join(ARCHITECTURES)}")
    build, options = ARCHITECTURES[name]
    return with_changes(read.where, partial(build, **options(read, changes.get("sequence"))), changes)


def _gpt2(config: Config, sequence: int | None) -> dict:
    config.only("activation_function", "gelu_new", "gelu_pytorch_tanh", "relu")
    config.only("scale_attn_weights", True)
    config.only("scale_attn_by_inverse_layer_idx", False)
    config.only("add_cross_attention", False)
    hidden = config.size("n_embd")
    return {
        "layers": config.size("n_layer"),
        "hidden": hidden,
        "heads": config.size("n_head"),
        "vocabulary": config.size("vocab_size"),
        "sequence": config.size("n_positions"),
        "inner": config.size("n_inner", 4 * hidden),
        "feed_forward": "relu" if config.value("activation_function") == "relu" else "gelu",
        "eps": config.number("layer_norm_epsilon", 1e-5),
        "dropout": config.number("resid_pdrop", 0.1),
        "tied": config.flag("tie_word_embeddings", True),
    }


def _bert(config: Config, sequence: int | None) -> dict:
    hidden = config.size("hidden_size")
    config.only("hidden_act", "gelu")
    config.only("intermediate_size", 4 * hidden)
    config.only("position_embedding_type", "absolute")
    config.only("type_vocab_size", 2)
    config.only("layer_norm_eps", 1e-12)
    config.only("is_decoder", False)
    return {
        "layers": config.size("num_hidden_layers"),
        "hidden": hidden,
        "heads": config.size("num_attention_heads"),
        "vocabulary": config.size("vocab_size"),
        "sequence": config.size("max_position_embeddings"),
        "dropout": config.number("hidden_dropout_prob", 0.1),
        "tied": config.flag("tie_word_embeddings", True),
    }


def _decoder(config: Config, sequence: int | None) -> dict:
    """What Llama and those after it have in common."""
    config.only("hidden_act", "silu")
    config.only("mlp_bias", False)
    return {
        "layers": config.size("num_hidden_layers"),
        "hidden": config.size("hidden_size"),
        "heads": config.size("num_attention_heads"),
        "kv_heads": config.size("num_key_value_heads", None),
        "head_dim": config.size("head_dim", None),
        "vocabulary": config.size("vocab_size"),
        "inner": config.size("intermediate_size"),
        "eps": config.number("rms_norm_eps", 1e-6),
        "tied": config.flag("tie_word_embeddings", False),
        "positions": "rotary",
        "feed_forward": "swiglu",
        "norm": "rms",
        "bias": False,
        **_rotary(config, sequence),
    }


def _rotary(config: Config, sequence: int | None) -> dict:
    """The base of rotary positions and the longest sequence."""
    config.only("partial_rotary_factor", 1)
    rope = config.part("rope_parameters") or config.part("rope_scaling")
    base = (config.part("rope_parameters") or config).number("rope_theta", 10000.0)
    longest = config.size("max_position_embeddings")
    kind = "default" if rope is None else rope.value("rope_type") or rope.value("type") or "default"
    if kind in ("yarn", "llama3"):
        longest = rope.size("original_max_position_embeddings")
        if sequence and sequence > longest:
            raise ValueError(
                f"{config.where}: sequence={sequence}, but {longest} is the longest without the stretched positions of "
                f'rope_type="{kind}", which cannot be built'
            )
    elif kind != "default":
        rope.refuse("rope_type", kind, '"default", "llama3" or "yarn"')
    return {"rotary_base": base, "sequence": longest}


def _windows(config: Config, sequence: int | None, options: dict, kinds: list[str] | None = None) -> dict:
    """The windows of attention. kinds: of the layers, where the config has no layer_types; None if all are alike."""
    window, layers = config.size("sliding_window", None), options["layers"]
    if window is None or window >= (sequence or options["sequence"]):
        return {}
    kinds = config.list("layer_types") or kinds or ["sliding_attention"] * layers
    if unknown := [kind for kind in kinds if kind not in ("sliding_attention", "full_attention")]:
        config.refuse("layer_types", unknown[0], '"sliding_attention" or "full_attention"')
    full = [place for place, kind in enumerate(kinds, 1) if kind == "full_attention"]
    if not full:
        return {"window": window}
    if full != list(range(full[0], len(kinds) + 1, full[0])):
        raise ValueError(
            f"{config.where}: layer_types has full_attention in layers {full}, which cannot be built: it must be in "
            "all or in every n-th"
        )
    return {} if full[0] == 1 else {"window": window, "full_every": full[0]}


def _llama(config: Config, sequence: int | None) -> dict:
    config.only("attention_bias", False)
    return _decoder(config, sequence)


def _mistral(config: Config, sequence: int | None) -> dict:
    options = _decoder(config, sequence)
    return options | _windows(config, sequence, options)


def _mixtral(config: Config, sequence: int | None) -> dict:
    config.only("router_jitter_noise", 0)
    return _mistral(config, sequence) | {
        "experts": config.size("num_local_experts"),
        "top_k": config.size("num_experts_per_tok"),
        "balance": config.number("router_aux_loss_coef", 0.001),
    }


def _qwen2(config: Config, sequence: int | None) -> dict:
    config.only("use_sliding_window", False)
    return _decoder(config, sequence) | {"qkv_bias": True}


def _qwen3(config: Config, sequence: int | None) -> dict:
    config.only("use_sliding_window", False)
    return _llama(config, sequence) | {"normed_heads": True}


def _qwen3_experts(config: Config, sequence: int | None) -> dict:
    config.only("mlp_only_layers", [])
    config.only("norm_topk_prob", True)
    options = _qwen3(config, sequence)
    return options | {
        "experts": config.size("num_experts"),
        "top_k": config.size("num_experts_per_tok"),
        "balance": config.number("router_aux_loss_coef", 0.001),
        "every": config.size("decoder_sparse_step", 1),
        "inner": config.size("moe_intermediate_size"),
        "dense_inner": options["inner"],
    }


def _gpt_oss(config: Config, sequence: int | None) -> dict:
    config.only("attention_bias", True)
    options = _decoder(config, sequence)
    alternating = ["full_attention" if place % 2 else "sliding_attention" for place in range(options["layers"])]
    return options | _windows(config, sequence, options, alternating) | {
        "experts": config.size("num_local_experts"),
        "top_k": config.size("num_experts_per_tok"),
        "balance": config.number("router_aux_loss_coef", 0.9),
        "bias": True,
    }  # fmt: skip


def _deepseek(config: Config, sequence: int | None) -> dict:
    config.only("moe_layer_freq", 1)
    options, inner = _llama(config, sequence), config.size("moe_intermediate_size")
    shared = config.value("n_shared_experts")
    return options | {
        "kv_heads": None,  # each query has its own
        "head_dim": config.size("qk_nope_head_dim"),
        "latent": LatentSizes(
            config.size("q_lora_rank", None), config.size("kv_lora_rank"), config.size("qk_rope_head_dim"),
            config.size("v_head_dim"),
        ),
        "experts": config.size("n_routed_experts"),
        "top_k": config.size("num_experts_per_tok"),
        "balance": config.number("aux_loss_alpha", 0.001),
        "inner": inner,
        "dense_layers": config.whole("first_k_dense_replace", 0),
        "dense_inner": options["inner"],
        "shared_inner": inner * config.size("n_shared_experts") if shared else None,
    }  # fmt: skip


Options = Callable[[Config, int | None], dict]
ARCHITECTURES: dict[str, tuple[Builder, Options]] = {
    "GPT2LMHeadModel": (gpt, _gpt2),
    "BertForMaskedLM": (bert, _bert),
    "LlamaForCausalLM": (gpt, _llama),
    "MistralForCausalLM": (gpt, _mistral),
    "MixtralForCausalLM": (moe_gpt, _mixtral),
    "Qwen2ForCausalLM": (gpt, _qwen2),
    "Qwen3ForCausalLM": (gpt, _qwen3),
    "Qwen3MoeForCausalLM": (moe_gpt, _qwen3_experts),
    "DeepseekV2ForCausalLM": (moe_gpt, _deepseek),
    "DeepseekV3ForCausalLM": (moe_gpt, _deepseek),
    "GptOssForCausalLM": (moe_gpt, _gpt_oss),
}
