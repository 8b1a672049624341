"""Adapters for other programs: any low-rank adapter as the LoRA folder that the ``peft`` library loads."""

import dataclasses
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from zsml_jax.models.pretrained import Pretrained
from zsml_jax.peft.adapter import Adapter, check_fits
from zsml_jax.peft.files import write_adapter
from zsml_jax.peft.hub_modules import hub_modules
from zsml_jax.peft.several import low_rank_factors


def export_lora(
    pretrained: Pretrained, adapter: Adapter, folder: str | Path, *, prefix: str = "", base_name: str | None = None
) -> None:
    """Writes the LoRA that adds exactly what the adapter does, with the names of the hub.

    Its rank is that of the adapter's factors, N r for MoRe. Where the hub holds queries, keys and values in one module,
    as GPT-2 does, it is the sum of theirs. The scale is in the numbers, which are float32, so that ``lora_alpha`` is
    the rank. Dropout is left out.

    Args:
      pretrained: the model that was adapted.
      adapter: one low-rank adapter: MoRe, LoRA or VeRA.
      folder: a new folder, or one with an adapter, which is replaced.
      prefix: what stands before the names in the torch model that will be adapted, where that is not the one of
        ``config.json``, such as ``"bert."`` for a classifier over a plain BERT.
      base_name: the name of the base on the hub, for those who look it up.

    Raises:
      ValueError: if the method is not of low rank, parameters in full or a head are trained, which this layout has no
        place for, the adapter does not fit the model, or a layer has no name on the hub.
      FileExistsError: if the folder holds something else than an adapter.
    """
    if adapter.weights or adapter.head is not None:
        raise ValueError(
            "adapter must train low-rank arrays only, since a LoRA folder has no place for parameters in full or a "
            "head; merge it, or write it with save"
        )
    check_fits(adapter, pretrained.params)
    exact = dataclasses.replace(
        adapter, arrays=jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), adapter.arrays)
    )
    factors = {}
    for layer in exact.layers:
        with jax.default_matmul_precision("highest"):
            down, up = map(np.asarray, low_rank_factors(exact, layer))
        if not (np.isfinite(down).all() and np.isfinite(up).all()):
            raise ValueError(f"adapter must be finite to be exported, got infinite or NaN numbers at {layer.path!r}")
        rows = layer.rows or range(layer.stack[0]) if layer.stack else (None,)
        for i, row in enumerate(rows):
            factors[layer.path, row] = (down, up) if row is None else (down[i], up[i])
    tensors, ranks, left, is_in_out = {}, {}, set(factors), False
    for name, module in hub_modules(pretrained).items():
        held = [(place.path, place.row) for place in module.places]
        if not left.intersection(held):
            continue
        left.difference_update(held)
        none = lambda shape: (np.zeros((shape[0], 0), np.float32), np.zeros((0, shape[1]), np.float32))
        pairs = [factors.get(key) or none(place.shape) for key, place in zip(held, module.places, strict=True)]
        ranks[prefix + name] = rank = sum(up.shape[0] for _, up in pairs)
        first, ups = 0, []
        for _, up in pairs:
            ups.append(np.pad(up, ((first, rank - first - up.shape[0]), (0, 0))))
            first += up.shape[0]
        key = f"base_model.model.{prefix}{name}"
        tensors[f"{key}.lora_A.weight"] = np.concatenate([down for down, _ in pairs], axis=1).T
        tensors[f"{key}.lora_B.weight"] = module.joined(ups)
        is_in_out |= module.is_in_out
    if left:
        raise ValueError(f"adapter must adapt layers that have names on the hub, got {sorted(map(str, left))}")
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {name: rank for name, rank in ranks.items() if rank != usual}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if hasattr(pretrained.module, "init_cache") else None,
        "base_model_name_or_path": base_name,
        "r": usual,
        "lora_alpha": usual,
        "lora_dropout": 0.0,
        "target_modules": list(ranks),
        "rank_pattern": others,
        "alpha_pattern": others,
        "fan_in_fan_out": is_in_out,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "inference_mode": True,
    }
    write_adapter(folder, config, tensors)
