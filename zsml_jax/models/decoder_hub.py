"""Configuration files of decoders: ``config.json`` in its older and newer spellings, in and out.

Each ``read_...`` takes the fields of the file, the names of the tensors and the dtype of activations, and each
``write_...`` a configuration, as :class:`~zsml_jax.models.families.Family` describes them.
"""

from collections.abc import Collection, Mapping
from typing import Any

from zsml_jax.models.decoder_config import DecoderConfig
from zsml_jax.models.hub_fields import refuse
from zsml_jax.models.rotary_hub import read_rotary, write_rotary


def read_gpt2(hub: Mapping[str, Any], names: Collection[str], dtype: str) -> DecoderConfig:
    """Reads the configuration of a GPT-2."""
    del names
    refuse(hub, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    return DecoderConfig(
        vocab_size=hub.get("vocab_size", 50257),
        width=(width := hub.get("n_embd", 768)),
        num_layers=hub.get("n_layer", 12),
        num_heads=hub.get("n_head", 12),
        mlp_width=hub.get("n_inner") or 4 * width,
        max_positions=hub.get("n_positions", 1024),
        attention_scale=None if hub.get("scale_attn_weights", True) else 1.0,
        activation=hub.get("activation_function", "gelu_new"),
        norm_eps=hub.get("layer_norm_epsilon", 1e-5),
        tied=hub.get("tie_word_embeddings", True),
        query_bias=True,
        **_PLAIN,
        dtype=dtype,
    )


def write_gpt2(config: DecoderConfig) -> dict[str, Any]:
    """Writes the configuration of a GPT-2."""
    return {
        "vocab_size": config.vocab_size,
        "n_embd": config.width,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.mlp_width,
        "n_positions": config.max_positions,
        "scale_attn_weights": config.attention_scale is None,
        "activation_function": config.activation,
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tied,
    }


def read_gpt_neo(hub: Mapping[str, Any], names: Collection[str], dtype: str) -> DecoderConfig:
    """Reads the configuration of a GPT-Neo, whose scores are not scaled."""
    del names
    num_layers = hub.get("num_layers", 24)
    kinds = [
        kind for pattern, times in hub.get("attention_types") or [[["global", "local"], 12]] for kind in pattern * times
    ]
    if len(kinds) != num_layers or not set(kinds) <= {"global", "local"}:
        raise ValueError(
            f"config.json: attention_types must give 'global' or 'local' for {num_layers} layers, got {kinds}"
        )
    return DecoderConfig(
        vocab_size=hub.get("vocab_size", 50257),
        width=(width := hub.get("hidden_size", 2048)),
        num_layers=num_layers,
        num_heads=hub.get("num_heads", 16),
        mlp_width=hub.get("intermediate_size") or 4 * width,
        max_positions=hub.get("max_position_embeddings", 2048),
        attention_scale=1.0,
        window=hub.get("window_size", 256) if "local" in kinds else None,
        full_layers=tuple(i for i, kind in enumerate(kinds) if kind == "global") if "local" in kinds else (),
        activation=hub.get("activation_function", "gelu_new"),
        norm_eps=hub.get("layer_norm_epsilon", 1e-5),
        tied=hub.get("tie_word_embeddings", True),
        **_PLAIN,
        dtype=dtype,
    )


def write_gpt_neo(config: DecoderConfig) -> dict[str, Any]:
    """Writes the configuration of a GPT-Neo."""
    is_local = [config.window is not None and i not in config.full_layers for i in range(config.num_layers)]
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_layers": config.num_layers,
        "num_heads": config.num_heads,
        "intermediate_size": config.mlp_width,
        "max_position_embeddings": config.max_positions,
        "attention_types": [[["local" if local else "global" for local in is_local], 1]],
        "window_size": config.window or 256,
        "activation_function": config.activation,
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tied,
    }


def read_gpt_neox(hub: Mapping[str, Any], names: Collection[str], dtype: str) -> DecoderConfig:
    """Reads the configuration of a GPT-NeoX, such as Pythia."""
    del names
    return DecoderConfig(
        vocab_size=hub.get("vocab_size", 50432),
        width=hub.get("hidden_size", 6144),
        num_layers=hub.get("num_hidden_layers", 44),
        num_heads=hub.get("num_attention_heads", 64),
        mlp_width=hub.get("intermediate_size", 24576),
        max_positions=(max_positions := hub.get("max_position_embeddings", 2048)),
        rotary=read_rotary(
            hub, hub.get("hidden_size", 6144) // hub.get("num_attention_heads", 64), max_positions, default_part=0.25
        ),
        query_bias=hub.get("attention_bias", True),
        out_bias=hub.get("attention_bias", True),
        mlp_bias=True,
        gated=False,
        activation=hub.get("hidden_act", "gelu"),
        norm="layer",
        norm_eps=hub.get("layer_norm_eps", 1e-5),
        parallel=hub.get("use_parallel_residual", True),
        tied=hub.get("tie_word_embeddings", False),
        dtype=dtype,
    )


def write_gpt_neox(config: DecoderConfig) -> dict[str, Any]:
    """Writes the configuration of a GPT-NeoX."""
    return {
        **_write_common(config),
        "rope_parameters": write_rotary(config.rotary, config.key_width),
        "attention_bias": config.query_bias,
        "layer_norm_eps": config.norm_eps,
        "use_parallel_residual": config.parallel,
    }


def read_llama(hub: Mapping[str, Any], names: Collection[str], dtype: str) -> DecoderConfig:
    """Reads the configuration of a Llama, Mistral, Qwen2 or Qwen3."""
    del names
    model_type = hub["model_type"]
    default = _LLAMA_DEFAULTS[model_type]
    width = hub.get("hidden_size", 4096)
    num_layers = hub.get("num_hidden_layers", 32)
    num_heads = hub.get("num_attention_heads", 32)
    head_width = hub.get("head_dim") or default.get("head_dim") or width // num_heads
    max_positions = hub.get("max_position_embeddings", default["max_position_embeddings"])
    bias = hub.get("attention_bias", False)
    window, full_layers = _windows(hub, num_layers)
    return DecoderConfig(
        vocab_size=hub.get("vocab_size", default["vocab_size"]),
        width=width,
        num_layers=num_layers,
        num_heads=num_heads,
        mlp_width=hub.get("intermediate_size", default["intermediate_size"]),
        max_positions=max_positions,
        num_kv_heads=hub.get("num_key_value_heads", default.get("num_key_value_heads")) or num_heads,
        head_width=head_width,
        rotary=read_rotary(hub, head_width, max_positions),
        window=window,
        full_layers=full_layers,
        query_bias=True if model_type == "qwen2" else bias,
        out_bias=False if model_type == "qwen2" else bias,
        query_norm=model_type == "qwen3",
        mlp_bias=hub.get("mlp_bias", False) if model_type == "llama" else False,
        activation=hub.get("hidden_act", "silu"),
        norm_eps=hub.get("rms_norm_eps", 1e-6),
        tied=hub.get("tie_word_embeddings", False),
        dtype=dtype,
    )


def write_llama(config: DecoderConfig) -> dict[str, Any]:
    """Writes the configuration of a Llama."""
    return {
        **_write_common(config),
        "num_key_value_heads": config.key_heads,
        "head_dim": config.key_width,
        "rope_parameters": write_rotary(config.rotary, config.key_width),
        "attention_bias": config.out_bias,
        "mlp_bias": config.mlp_bias,
        "rms_norm_eps": config.norm_eps,
    }


def write_mistral(config: DecoderConfig) -> dict[str, Any]:
    """Writes the configuration of a Mistral."""
    return {**write_llama(config), "sliding_window": config.window}


def write_qwen(config: DecoderConfig) -> dict[str, Any]:
    """Writes the configuration of a Qwen2 or Qwen3."""
    is_local = [config.window is not None and i not in config.full_layers for i in range(config.num_layers)]
    return {
        **write_llama(config),
        "sliding_window": config.window,
        "use_sliding_window": config.window is not None,
        "layer_types": ["sliding_attention" if local else "full_attention" for local in is_local],
    }


#: GPT-2 and GPT-Neo: layer norms with biases, learned positions, no gate.
_PLAIN: Any = {"out_bias": True, "mlp_bias": True, "gated": False, "norm": "layer"}

_QWEN: dict[str, Any] = {"vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768}
_LLAMA_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048},
    "mistral": {
        "vocab_size": 32000,
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "num_key_value_heads": 8,
    },
    "qwen2": {**_QWEN, "num_key_value_heads": 32},
    "qwen3": {**_QWEN, "num_key_value_heads": 32, "head_dim": 128},
}


def _windows(hub: Mapping[str, Any], num_layers: int) -> tuple[int | None, tuple[int, ...]]:
    """The window and the layers without it."""
    if hub["model_type"] == "mistral":
        return hub.get("sliding_window", 4096), ()
    if hub["model_type"] == "llama" or not hub.get("use_sliding_window", False):
        return None, ()
    start = hub.get("max_window_layers", 28)
    kinds = hub.get("layer_types") or ["full_attention"] * min(start, num_layers)
    full = tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")
    return (None, ()) if len(full) == num_layers else (hub.get("sliding_window", 4096), full)


def _write_common(config: DecoderConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_width,
        "max_position_embeddings": config.max_positions,
        "hidden_act": config.activation,
        "tie_word_embeddings": config.tied,
    }
