"""Config files and checkpoints of CLIP, as their hub folders hold them."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from zsml_jax.models.clip import Clip, ClipConfig, TowerConfig
from zsml_jax.models.families import Family
from zsml_jax.models.rules import TRANSPOSE, Rule, Table, Transform, dense_rules, left_out, norm_rules

#: torch keeps a convolution as (out, in, rows, columns), Flax as (rows, columns, in, out).
_CONVOLUTION = Transform(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))


def _tower(source: str, path: str) -> tuple[Rule, ...]:
    source, path = f"{source}.encoder.layers.{{i}}", f"{path}/layers[{{i}}]"
    return (
        *norm_rules(f"{source}.layer_norm1", f"{path}/attention_norm"),
        *dense_rules(f"{source}.self_attn.q_proj", f"{path}/attention/query"),
        *dense_rules(f"{source}.self_attn.k_proj", f"{path}/attention/key"),
        *dense_rules(f"{source}.self_attn.v_proj", f"{path}/attention/value"),
        *dense_rules(f"{source}.self_attn.out_proj", f"{path}/attention/out"),
        *norm_rules(f"{source}.layer_norm2", f"{path}/mlp_norm"),
        *dense_rules(f"{source}.mlp.fc1", f"{path}/mlp/up"),
        *dense_rules(f"{source}.mlp.fc2", f"{path}/mlp/down"),
    )


_CLIP = Table(
    rules=(
        Rule("text_model.embeddings.token_embedding.weight", "text/word/embedding"),
        Rule("text_model.embeddings.position_embedding.weight", "text/position/embedding"),
        *_tower("text_model", "text"),
        *norm_rules("text_model.final_layer_norm", "text/norm"),
        Rule("text_projection.weight", "text/projection/kernel", TRANSPOSE),
        Rule("vision_model.embeddings.class_embedding", "image/class"),
        Rule("vision_model.embeddings.patch_embedding.weight", "image/patch/kernel", _CONVOLUTION),
        Rule("vision_model.embeddings.position_embedding.weight", "image/position/embedding"),
        *norm_rules("vision_model.pre_layrnorm", "image/pre_norm"),  # spelled so in the files
        *_tower("vision_model", "image"),
        *norm_rules("vision_model.post_layernorm", "image/norm"),
        Rule("visual_projection.weight", "image/projection/kernel", TRANSPOSE),
        Rule("logit_scale", "logit_scale"),
        *left_out("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"),
    )
)


def _config(hub: Mapping[str, Any], names: Collection[str], dtype: str) -> ClipConfig:
    del names
    # Files hold only what differs from the defaults; the oldest repeat a part under a second name, which decides.
    text, image = (
        {**(hub.get(f"{part}_config") or {}), **(hub.get(f"{part}_config_dict") or {})} for part in ("text", "vision")
    )
    end_id = text.get("eos_token_id", 49407)
    return ClipConfig(
        text=_tower_config(text, 512, 8, dtype),
        image=_tower_config(image, 768, 12, dtype),
        vocab_size=text.get("vocab_size", 49408),
        max_positions=text.get("max_position_embeddings", 77),
        # The first files name a wrong end token, 2.
        end_id=None if end_id == 2 else end_id,
        image_size=image.get("image_size", 224),
        patch_size=image.get("patch_size", 32),
        channels=image.get("num_channels", 3),
        projection_width=hub.get("projection_dim", 512),
    )


def _tower_config(part: Mapping[str, Any], width: int, heads: int, dtype: str) -> TowerConfig:
    return TowerConfig(
        width=part.get("hidden_size", width),
        num_layers=part.get("num_hidden_layers", 12),
        num_heads=part.get("num_attention_heads", heads),
        mlp_width=part.get("intermediate_size", 4 * width),
        activation=part.get("hidden_act", "quick_gelu"),
        norm_eps=part.get("layer_norm_eps", 1e-5),
        dtype=dtype,
    )


def _write(config: ClipConfig) -> dict[str, Any]:
    text = {
        **_write_tower(config.text, config.projection_width),
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "eos_token_id": 2 if config.end_id is None else config.end_id,
    }
    image = {
        **_write_tower(config.image, config.projection_width),
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_channels": config.channels,
    }
    return {"text_config": text, "vision_config": image, "projection_dim": config.projection_width}


def _write_tower(config: TowerConfig, projection_width: int) -> dict[str, Any]:
    return {
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.mlp_width,
        "hidden_act": config.activation,
        "layer_norm_eps": config.norm_eps,
        "projection_dim": projection_width,
    }


def _inputs(config: ClipConfig) -> dict[str, Any]:
    shape = (1, config.image_size, config.image_size, config.channels)
    return {"images_NxYxXxC": jax.ShapeDtypeStruct(shape, jnp.float32)}


#: The family of this file by the ``model_type`` of its config files.
FAMILIES = {"clip": Family(Clip, _config, _CLIP, _write, "CLIPModel", _inputs)}
