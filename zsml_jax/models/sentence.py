"""From hidden states to one vector per text: pooling and normalisation as the model's own files say.

A sentence encoder's folder holds ``modules.json``, a list of steps: the transformer, the pooling (with a config file
of its own) and perhaps a normalisation (Reimers and Gurevych, 2019, section 3).
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from zsml_jax.models.json_file import read_json, write_json
from zsml_jax.typing import AnyArray, Array

#: The poolings by name; those that a folder only switches on are concatenated in this order.
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens")


@dataclasses.dataclass(frozen=True)
class SentenceConfig:
    """How a text becomes one vector.

    Attributes:
      poolings: names of :data:`POOLINGS`; the vectors of several are concatenated.
      normalize: whether the vector is divided by its Euclidean norm.
      max_length: longest text in tokens; None for the tokenizer's own limit.
      lowercase: whether texts are lowercased before the tokenizer sees them.
    """

    poolings: tuple[str, ...] = ("mean",)
    normalize: bool = False
    max_length: int | None = None
    lowercase: bool = False


def pool(
    hidden: Float[AnyArray, "b t d"],
    mask: Bool[AnyArray, "b t"] | Int[AnyArray, "b t"] | Float[AnyArray, "b t"],
    config: SentenceConfig,
) -> Float[Array, "b e"]:
    """Pools the hidden states of each text into a float32 vector.

    Args:
      hidden: last hidden states.
      mask: non-zero at tokens, zero at padding; a text without any token gives zeros.
      config: what to do.

    Returns:
      The vectors, ``e = d`` times the number of poolings.
    """
    is_token = jnp.asarray(mask != 0)[:, :, None]
    hidden = jnp.asarray(hidden).astype(jnp.float32)
    count = jnp.maximum(is_token.sum(axis=1), 1).astype(jnp.float32)
    total = jnp.where(is_token, hidden, 0).sum(axis=1)
    vectors = {
        "cls": lambda: hidden[:, 0],
        "mean": lambda: total / count,
        "max": lambda: jnp.where(is_token.any(axis=1), jnp.where(is_token, hidden, -jnp.inf).max(axis=1), 0),
        "mean_sqrt_len_tokens": lambda: total / jnp.sqrt(count),
    }
    pooled = jnp.concatenate([vectors[pooling]() for pooling in config.poolings], axis=-1)
    if config.normalize:
        pooled = pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)
    return pooled


def read_sentence_config(folder: Path) -> tuple[SentenceConfig, Path]:
    """Reads ``modules.json`` and the files that it names.

    Args:
      folder: the model's folder.

    Returns:
      The configuration (mean pooling without normalisation if there is no ``modules.json``), and the folder of the
      transformer itself, which older packages keep in a folder of its own.

    Raises:
      ValueError: if a step or a pooling is not supported.
    """
    if not (folder / "modules.json").is_file():
        return SentenceConfig(), folder
    steps = read_json(folder / "modules.json")
    kinds = [str(step.get("type", "")).rpartition(".")[2] for step in steps]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise ValueError(
            f"{folder / 'modules.json'} lists the steps {kinds}; supported: Transformer, Pooling, and perhaps Normalize"
        )
    transformer = folder / steps[0].get("path", "")
    # The file is called sentence_bert_config.json, by older packages sentence_<model type>_config.json.
    limits = [read_json(path) for path in sorted(transformer.glob("sentence_*_config.json"))] or [{}]
    return SentenceConfig(
        poolings=_poolings(folder / steps[1].get("path", "") / "config.json"),
        normalize="Normalize" in kinds,
        max_length=limits[0].get("max_seq_length"),
        lowercase=bool(limits[0].get("do_lower_case", False)),
    ), transformer


def write_sentence_config(config: SentenceConfig, folder: Path, width: int) -> None:
    """Writes ``modules.json`` and the files that it names, from which :func:`read_sentence_config` reads the same.

    Args:
      config: what to write.
      folder: the model's folder, which exists.
      width: width of the hidden states.
    """
    kinds = ["Transformer", "Pooling", *(["Normalize"] if config.normalize else [])]
    steps = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    pooling: dict[str, Any] = {"word_embedding_dimension": width}
    if list(config.poolings) == sorted(config.poolings, key=POOLINGS.index):
        flags = {name: flag for flag, name in _FLAGS.items()}
        pooling |= {f"pooling_mode_{flags.get(name, name)}": name in config.poolings for name in POOLINGS}
    else:
        pooling["pooling_mode"] = list(config.poolings)
    limits = {"max_seq_length": config.max_length, "do_lower_case": config.lowercase}
    (folder / "1_Pooling").mkdir()
    write_json(folder / "modules.json", steps)
    write_json(folder / "1_Pooling" / "config.json", pooling)
    write_json(folder / "sentence_bert_config.json", limits)


def _poolings(path: Path) -> tuple[str, ...]:
    hub = read_json(path)
    if "pooling_mode" in hub:
        named = hub["pooling_mode"]
        chosen = (named,) if isinstance(named, str) else tuple(named)
    else:
        on = [
            key.removeprefix("pooling_mode_") for key, value in hub.items() if key.startswith("pooling_mode_") and value
        ]
        chosen = tuple(sorted((_FLAGS.get(flag, flag) for flag in on), key=lambda name: (*POOLINGS, name).index(name)))
    if not chosen or set(chosen) - set(POOLINGS):
        raise ValueError(f"{path} asks for the poolings {list(chosen)}; supported are {list(POOLINGS)}")
    return chosen


_FLAGS = {"cls_token": "cls", "max_tokens": "max", "mean_tokens": "mean"}
