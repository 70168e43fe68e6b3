"""Models from Hugging Face's config.json: as many parameters as published, and a sentence for what cannot be built."""

import json

import pytest

import minidl
from minidl import models
from minidl.models.latent_attention import LatentSizes
from minidl.parallel import Plan
from simulator import Cluster, simulate

# The keys of published configs that shapes depend on.
LLAMA = {
    "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
    "max_position_embeddings": 8192, "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05, "rope_scaling": None, "rope_theta": 500000.0, "tie_word_embeddings": False,
    "vocab_size": 128256, "attention_bias": False, "torch_dtype": "bfloat16",
}  # fmt: skip
MISTRAL = LLAMA | {
    "architectures": ["MistralForCausalLM"], "max_position_embeddings": 32768, "sliding_window": 4096,
    "vocab_size": 32000, "rope_theta": 10000.0,
}  # fmt: skip
DEEPSEEK_V3 = {
    "architectures": ["DeepseekV3ForCausalLM"], "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168,
    "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840, "moe_intermediate_size": 2048,
    "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": True,
    "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-06, "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid",
    "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096},
    "v_head_dim": 128, "vocab_size": 129280,
}  # fmt: skip
GPT_OSS = {
    "architectures": ["GptOssForCausalLM"], "attention_bias": True, "head_dim": 64, "hidden_act": "silu",
    "hidden_size": 2880, "intermediate_size": 2880, "layer_types": ["sliding_attention", "full_attention"] * 18,
    "max_position_embeddings": 131072, "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 36,
    "num_key_value_heads": 8, "num_local_experts": 128, "rms_norm_eps": 1e-05, "rope_theta": 150000,
    "rope_scaling": {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096},
    "sliding_window": 128, "swiglu_limit": 7.0, "vocab_size": 201088,
}  # fmt: skip
QWEN3 = LLAMA | {
    "architectures": ["Qwen3ForCausalLM"], "head_dim": 128, "intermediate_size": 12288, "num_hidden_layers": 36,
    "max_position_embeddings": 40960, "rope_theta": 1000000, "use_sliding_window": False, "vocab_size": 151936,
}  # fmt: skip
GPT2 = {
    "architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new", "n_embd": 768, "n_head": 12, "n_layer": 12,
    "n_positions": 1024, "vocab_size": 50257, "resid_pdrop": 0.1,
}  # fmt: skip
BERT = {
    "architectures": ["BertForMaskedLM"], "hidden_act": "gelu", "hidden_size": 768, "intermediate_size": 3072,
    "max_position_embeddings": 512, "num_attention_heads": 12, "num_hidden_layers": 12, "type_vocab_size": 2,
    "vocab_size": 30522, "layer_norm_eps": 1e-12,
}  # fmt: skip
MIXTRAL = MISTRAL | {
    "architectures": ["MixtralForCausalLM"], "num_experts_per_tok": 2, "num_local_experts": 8, "sliding_window": None,
    "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02,
}  # fmt: skip
QWEN2 = LLAMA | {
    "architectures": ["Qwen2ForCausalLM"], "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28,
    "num_hidden_layers": 28, "num_key_value_heads": 4, "vocab_size": 152064, "sliding_window": 131072,
    "use_sliding_window": False,
}  # fmt: skip
QWEN3_EXPERTS = QWEN3 | {
    "architectures": ["Qwen3MoeForCausalLM"], "decoder_sparse_step": 1, "hidden_size": 2048, "intermediate_size": 6144,
    "mlp_only_layers": [], "moe_intermediate_size": 768, "norm_topk_prob": True, "num_experts": 128,
    "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
}  # fmt: skip
DEEPSEEK_V2_LITE = DEEPSEEK_V3 | {
    "architectures": ["DeepseekV2ForCausalLM"], "first_k_dense_replace": 1, "hidden_size": 2048,
    "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_routed_experts": 64, "n_shared_experts": 2,
    "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 27, "q_lora_rank": None,
    "vocab_size": 102400,
}  # fmt: skip
PUBLISHED = [  # as the checkpoints have them
    (GPT2, 124_439_808),
    (BERT, 109_514_298),
    (LLAMA, 8_030_261_248),
    (MISTRAL, 7_241_732_096),
    (MIXTRAL, 46_702_792_704),
    (QWEN2, 7_615_616_512),
    (QWEN3, 8_190_735_360),
    (QWEN3_EXPERTS, 30_532_122_624),
    (DEEPSEEK_V2_LITE, 15_706_484_224),
    (DEEPSEEK_V3, 671_026_419_200 - 58 * 256),  # without the routers' biases
    (GPT_OSS, 116_829_156_672 - 36 * (128 + 64)),  # without the routers' biases and the attention sinks
]


def parameters(build):
    with minidl.device("meta"):
        return sum(p.numel() for p in build().parameters())


@pytest.mark.parametrize(("config", "count"), PUBLISHED, ids=[config["architectures"][0] for config, _ in PUBLISHED])
def test_it_has_as_many_parameters_as_published(config, count):
    assert parameters(models.from_config(config)) == count


def test_a_config_is_the_model_of_its_name(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(DEEPSEEK_V3 | {"num_hidden_layers": 4}))
    predictions = [
        simulate(models.builder(name, **changes), Plan(expert=4), Cluster.load("dgx-a100", devices=4), 8)
        for name, changes in (("deepseek-v3", {"layers": 4}), (str(path), {}))
    ]
    assert predictions[0].step_seconds == pytest.approx(predictions[1].step_seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("config", "sequence", "windows"),
    [
        (MISTRAL, None, [4096] * 4),
        (MISTRAL, 4096, [None] * 4),  # as much as a window sees
        (GPT_OSS, None, [128, None, 128, None]),
        ({key: value for key, value in GPT_OSS.items() if key != "layer_types"}, 256, [128, None, 128, None]),
        (MISTRAL | {"layer_types": ["full_attention"] * 32}, None, [None] * 4),
        (MISTRAL | {"layer_types": ["sliding_attention"] * 32}, None, [4096] * 4),
    ],
)
def test_windows_are_those_of_the_layers(config, sequence, windows):
    changes = {"layers": 4} | ({"sequence": sequence} if sequence else {})
    with minidl.device("meta"):
        blocks = models.from_config(config, **changes)().blocks[1:-1]
    attention = [getattr(block, "block", block).attention for block in blocks]
    assert [layer.window for layer in attention] == windows


def test_positions_are_those_before_they_were_stretched():
    with minidl.device("meta"):
        assert models.from_config(GPT_OSS, layers=1)().example(1)[0].shape == (1, 4096)
        assert models.from_config(DEEPSEEK_V3, layers=1, sequence=128)().example(1)[0].shape == (1, 128)
        in_version_5 = {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}
        in_version_5["rope_parameters"]["original_max_position_embeddings"] = 64
        block = models.from_config(LLAMA | in_version_5, layers=1)()
    assert block.example(1)[0].shape == (1, 64) and block.blocks[1].attention.rotary_base == 5e5
    with pytest.raises(ValueError, match='sequence=8192, but 4096 is the longest without .* rope_type="yarn"'):
        models.from_config(GPT_OSS, sequence=8192)


def test_its_small_twin_learns():
    small = DEEPSEEK_V3 | {
        "hidden_size": 8, "intermediate_size": 12, "kv_lora_rank": 4, "moe_intermediate_size": 6, "n_routed_experts": 4,
        "num_attention_heads": 2, "num_experts_per_tok": 2, "num_hidden_layers": 2, "q_lora_rank": 4, "vocab_size": 12,
        "qk_nope_head_dim": 4, "qk_rope_head_dim": 2, "v_head_dim": 4, "first_k_dense_replace": 1,
    }  # fmt: skip
    model = models.from_config(small, sequence=6)()
    x, y = model.example(2)
    model.loss()(model(x), y).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.blocks[1].block.attention.sizes == LatentSizes(4, 4, 2, 4)
    assert model.blocks[2].shared.down.in_features == 6


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "the config: architectures=null cannot be built: it must be one of GPT2LMHeadModel, BertForMaskedLM"),
        ({"architectures": [["x"]]}, r'architectures=\["x"\] cannot be built: it must be one of GPT2LMHeadModel'),
        ({"architectures": "LlamaForCausalLM"}, 'architectures="LlamaForCausalLM" cannot be built: it must be a list'),
        ({"architectures": ["LlamaForCausalLM"]}, "the config has no num_hidden_layers"),
        (LLAMA | {"hidden_size": "4096"}, 'hidden_size="4096" cannot be built: it must be a whole number of at least'),
        (LLAMA | {"rms_norm_eps": -1}, "rms_norm_eps=-1 cannot be built: it must be a number that is not negative"),
        (LLAMA | {"hidden_act": "relu"}, 'hidden_act="relu" cannot be built: it must be "silu"'),
        (LLAMA | {"attention_bias": True}, "attention_bias=true cannot be built: it must be false"),
        (LLAMA | {"tie_word_embeddings": 1}, "tie_word_embeddings=1 cannot be built: it must be true or false"),
        (
            LLAMA | {"rope_scaling": {"rope_type": "longrope"}},
            'the config: rope_scaling: rope_type="longrope" cannot be built: it must be "default", "llama3" or "yarn"',
        ),
        (LLAMA | {"rope_scaling": "yarn"}, 'rope_scaling="yarn" cannot be built: it must be an object'),
        (MISTRAL | {"layer_types": ["chunked"] * 32}, 'layer_types="chunked" cannot be built: it must be "sliding_att'),
        (
            MISTRAL | {"layer_types": ["full_attention", "full_attention", "sliding_attention"]},
            r"layer_types has full_attention in layers \[1, 2\], which cannot be built",
        ),
        (BERT | {"intermediate_size": 4096}, "intermediate_size=4096 cannot be built: it must be 3072"),
        (QWEN3_EXPERTS | {"norm_topk_prob": False}, "norm_topk_prob=false cannot be built: it must be true"),
        (DEEPSEEK_V3 | {"first_k_dense_replace": -1}, "first_k_dense_replace=-1 .* a whole number of at least 0"),
    ],
)
def test_what_cannot_be_built_is_refused_by_key_and_value(config, message):
    with pytest.raises(ValueError, match=message):
        models.from_config(config)


def test_a_change_that_the_model_does_not_have_is_refused():
    with pytest.raises(ValueError, match="the config has no experts: it has layers, hidden, heads"):
        models.from_config(LLAMA, experts=4)


@pytest.mark.parametrize(("text", "message"), [("[]", "holds a list, and no object"), ("{", "is no JSON file")])
def test_a_file_that_holds_no_config_is_refused(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{path.name} {message}"):
        models.builder(str(path))
    with pytest.raises(OSError, match="none.json"):
        models.builder(str(tmp_path / "none.json"))
