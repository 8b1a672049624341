"""Rotary embeddings in configuration files, in their older and newer spellings, in and out."""

from collections.abc import Mapping
from typing import Any

from zsml_jax.models.rotary import ROTARY_KINDS, Rotary, yarn_attention_factor


def read_rotary(hub: Mapping[str, Any], head_width: int, max_positions: int, *, default_part: float = 1.0) -> Rotary:
    """Reads a rotary embedding from ``rope_parameters``, or from ``rope_theta``, ``rope_scaling`` and their kin.

    Args:
      hub: the configuration file.
      head_width: width of a head.
      max_positions: the original context where the file names none.
      default_part: the part of each head that is rotated if the file does not say.

    Raises:
      ValueError: if the scheme is not supported.
    """
    nested = hub.get("rope_scaling") or hub.get("rope_parameters") or {}
    kind = nested.get("rope_type", nested.get("type", "default"))
    if kind not in ROTARY_KINDS or any(isinstance(value, Mapping) for value in nested.values()):
        raise ValueError(f"config.json: rope_parameters of type {kind!r} are not supported; supported: {ROTARY_KINDS}")
    part = nested.get("partial_rotary_factor", hub.get("partial_rotary_factor", hub.get("rotary_pct", default_part)))
    width = int(head_width * part)
    theta = float(nested.get("rope_theta", hub.get("rope_theta", hub.get("rotary_emb_base", 10_000.0))))
    if kind == "default":
        return Rotary(width, theta)
    if kind == "linear":
        return Rotary(width, theta, kind, float(nested["factor"]))
    original = hub.get("original_max_position_embeddings") or nested.get("original_max_position_embeddings")
    original = original or max_positions
    factor = float(nested.get("factor") or max_positions / original)
    if kind == "llama3":
        low, high = float(nested["low_freq_factor"]), float(nested["high_freq_factor"])
        return Rotary(width, theta, kind, factor, original, low_freq_factor=low, high_freq_factor=high)
    scale = nested.get("attention_factor")
    if scale is None:
        scale = yarn_attention_factor(factor, nested.get("mscale"), nested.get("mscale_all_dim"))
    return Rotary(
        width,
        theta,
        kind,
        factor,
        original,
        beta_fast=float(nested.get("beta_fast") or 32),
        beta_slow=float(nested.get("beta_slow") or 1),
        truncate=nested.get("truncate", True),
        attention_factor=float(scale),
    )


def write_rotary(rotary: Rotary | None, head_width: int) -> dict[str, Any]:
    """Writes ``rope_parameters``.

    Args:
      rotary: the rotary embedding of a configuration.
      head_width: width of a head.

    Raises:
      ValueError: if there is none.
    """
    if rotary is None:
        raise ValueError("config must have a rotary embedding to be of this model type, got rotary=None")
    written: dict[str, Any] = {"rope_type": rotary.kind, "rope_theta": rotary.theta}
    if rotary.width != head_width:
        written["partial_rotary_factor"] = rotary.width / head_width
    if rotary.kind != "default":
        written["factor"] = rotary.factor
    if rotary.kind in ("llama3", "yarn"):
        written["original_max_position_embeddings"] = rotary.original_max_positions
    if rotary.kind == "llama3":
        written |= {"low_freq_factor": rotary.low_freq_factor, "high_freq_factor": rotary.high_freq_factor}
    if rotary.kind == "yarn":
        written |= {"beta_fast": rotary.beta_fast, "beta_slow": rotary.beta_slow, "truncate": rotary.truncate}
        written["attention_factor"] = rotary.attention_factor
    return written
