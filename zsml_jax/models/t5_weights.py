"""Config files and checkpoints of T5, versions 1.0 and 1.1, as their hub folders hold them."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from zsml_jax.models.families import Family
from zsml_jax.models.rules import TRANSPOSE, Rule, Table, left_out
from zsml_jax.models.t5 import T5
from zsml_jax.models.t5_config import T5Config

_HEAD = "lm_head.weight"


def _table(config: T5Config) -> Table:
    return Table(
        rules=(
            Rule("shared.weight", "word/embedding"),
            *_stack("encoder", config),
            *_stack("decoder", config),
            # Files of tied models may hold the embedding several times.
            Rule(_HEAD, None) if config.tied else Rule(_HEAD, "head/kernel", TRANSPOSE),
            *left_out("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
            # The first files hold a bias for the source's distances, which no program uses.
            *left_out("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"),
        )
    )


def _stack(stack: str, config: T5Config) -> tuple[Rule, ...]:
    source, path = f"{stack}.block.{{i}}.layer", f"{stack}/layers[{{i}}]"
    mlp = 1 if stack == "encoder" else 2
    dense = f"{source}.{mlp}.DenseReluDense"
    return (
        Rule(
            f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            f"{stack}/relative/bucket/embedding",
        ),
        *_attention(f"{source}.0.SelfAttention", f"{path}/attention"),
        Rule(f"{source}.0.layer_norm.weight", f"{path}/attention_norm/scale"),
        *(_attention(f"{source}.1.EncDecAttention", f"{path}/cross") if stack == "decoder" else ()),
        *((Rule(f"{source}.1.layer_norm.weight", f"{path}/cross_norm/scale"),) if stack == "decoder" else ()),
        Rule(f"{dense}.{'wi_1' if config.gated else 'wi'}.weight", f"{path}/mlp/up/kernel", TRANSPOSE),
        *((Rule(f"{dense}.wi_0.weight", f"{path}/mlp/gate/kernel", TRANSPOSE),) if config.gated else ()),
        Rule(f"{dense}.wo.weight", f"{path}/mlp/down/kernel", TRANSPOSE),
        Rule(f"{source}.{mlp}.layer_norm.weight", f"{path}/mlp_norm/scale"),
        Rule(f"{stack}.final_layer_norm.weight", f"{stack}/norm/scale"),
    )


def _attention(source: str, path: str) -> tuple[Rule, ...]:
    names = {"q": "query", "k": "key", "v": "value", "o": "out"}
    return tuple(Rule(f"{source}.{x}.weight", f"{path}/{name}/kernel", TRANSPOSE) for x, name in names.items())


def _config(hub: Mapping[str, Any], names: Collection[str], dtype: str) -> T5Config:
    # "relu", "gated-gelu" or "gated-silu"; the published gated models mean the tanh approximation by gelu.
    kind = hub.get("feed_forward_proj", "relu")
    gated = kind.startswith("gated-")
    # Newer files of untied models say that they are tied, and that outputs are not scaled.
    scaled = hub.get("scale_decoder_outputs", hub.get("tie_word_embeddings", True))
    return T5Config(
        vocab_size=hub.get("vocab_size", 32128),
        width=hub.get("d_model", 512),
        num_encoder_layers=(layers := hub.get("num_layers", 6)),
        num_layers=hub.get("num_decoder_layers") or layers,
        num_heads=hub.get("num_heads", 8),
        key_width=hub.get("d_kv", 64),
        mlp_width=hub.get("d_ff", 2048),
        max_positions=hub.get("n_positions", 512),
        num_buckets=hub.get("relative_attention_num_buckets", 32),
        max_distance=hub.get("relative_attention_max_distance", 128),
        gated=gated,
        activation="gelu_new" if kind == "gated-gelu" else kind.removeprefix("gated-"),
        norm_eps=hub.get("layer_norm_epsilon", 1e-6),
        tied=_HEAD not in names or (scaled and hub.get("tie_word_embeddings", True)),
        scale_outputs=scaled,
        dtype=dtype,
    )


def _write(config: T5Config) -> dict[str, Any]:
    activation = "gelu" if config.gated and config.activation == "gelu_new" else config.activation
    return {
        "vocab_size": config.vocab_size,
        "d_model": config.width,
        "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_layers,
        "num_heads": config.num_heads,
        "d_kv": config.key_width,
        "d_ff": config.mlp_width,
        "n_positions": config.max_positions,
        "relative_attention_num_buckets": config.num_buckets,
        "relative_attention_max_distance": config.max_distance,
        "feed_forward_proj": f"gated-{activation}" if config.gated else activation,
        "layer_norm_epsilon": config.norm_eps,
        # Older programs tell by the first whether outputs are scaled.
        "tie_word_embeddings": config.scale_outputs and config.tied,
        "scale_decoder_outputs": config.scale_outputs,
    }


def _inputs(config: T5Config) -> dict[str, Any]:
    del config
    return {"decoder_tokens_BxT": jax.ShapeDtypeStruct((1, 2), jnp.int32)}


#: The family of this file by the ``model_type`` of its config files.
FAMILIES = {"t5": Family(T5, _config, _table, _write, "T5ForConditionalGeneration", _inputs)}
