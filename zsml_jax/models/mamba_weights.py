"""Config files and checkpoints of Mamba, as hub folders hold them."""

from collections.abc import Collection, Mapping
from typing import Any

from zsml_jax.models.families import Family
from zsml_jax.models.mamba import Mamba, MambaConfig
from zsml_jax.models.rules import TRANSPOSE, Rule, Table, Transform, dense_rules

#: torch keeps the weights of a depthwise convolution as (channels, 1, width).
_DEPTHWISE = Transform(lambda x: x[:, 0].T, lambda x: x.T[:, None])


def _table(config: MambaConfig) -> Table:
    layer, mixer = "backbone.layers.{i}", "layers[{i}]/mixer"
    rules = (
        Rule("backbone.embeddings.weight", "embeddings/word/embedding"),
        Rule(f"{layer}.norm.weight", "layers[{i}]/norm/scale"),
        *dense_rules(f"{layer}.mixer.in_proj", f"{mixer}/in_proj"),
        Rule(f"{layer}.mixer.conv1d.weight", f"{mixer}/conv_kernel", _DEPTHWISE),
        Rule(f"{layer}.mixer.conv1d.bias", f"{mixer}/conv_bias"),
        *dense_rules(f"{layer}.mixer.x_proj", f"{mixer}/x_proj"),
        *dense_rules(f"{layer}.mixer.dt_proj", f"{mixer}/dt_proj"),
        # What the recurrence is made of stays float32: its errors grow with the length of the text.
        Rule(f"{layer}.mixer.A_log", f"{mixer}/A_log", dtype="float32"),
        Rule(f"{layer}.mixer.D", f"{mixer}/D", dtype="float32"),
        *dense_rules(f"{layer}.mixer.out_proj", f"{mixer}/out_proj"),
        Rule("backbone.norm_f.weight", "norm/scale"),
        # Files of tied models may hold the embedding a second time.
        Rule("lm_head.weight", None if config.tied else "head/kernel", TRANSPOSE),
    )
    # The backbone saved by itself has no prefix, and the first releases say "embedding".
    return Table(
        rules, renames=((r"^(embeddings?|layers|norm_f)\.", r"backbone.\1."), (r"\.embedding\.", ".embeddings."))
    )


def _read(hub: Mapping[str, Any], names: Collection[str], dtype: str) -> MambaConfig:
    del names
    rank = hub.get("time_step_rank", "auto")
    return MambaConfig(
        vocab_size=hub.get("vocab_size", 50280),
        width=hub.get("hidden_size", 768),
        num_layers=hub.get("num_hidden_layers", 32),
        state_size=hub.get("state_size", 16),
        expand=hub.get("expand", 2),
        conv_width=hub.get("conv_kernel", 4),
        step_rank=None if rank == "auto" else rank,
        activation=hub.get("hidden_act", "silu"),
        norm_eps=hub.get("layer_norm_epsilon", 1e-5),
        dense_bias=hub.get("use_bias", False),
        conv_bias=hub.get("use_conv_bias", True),
        residual_float32=hub.get("residual_in_fp32", True),
        tied=hub.get("tie_word_embeddings", True),
        dtype=dtype,
    )


def _write(config: MambaConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "state_size": config.state_size,
        "expand": config.expand,
        "conv_kernel": config.conv_width,
        "time_step_rank": config.rank,
        "hidden_act": config.activation,
        "layer_norm_epsilon": config.norm_eps,
        "use_bias": config.dense_bias,
        "use_conv_bias": config.conv_bias,
        "residual_in_fp32": config.residual_float32,
        "tie_word_embeddings": config.tied,
    }


#: The family of this file by the ``model_type`` of its config files.
FAMILIES = {"mamba": Family(Mamba, _read, _table, _write, "MambaForCausalLM")}
