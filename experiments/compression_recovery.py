"""Recovery of a pruned model: adapters learn beside it, and what is merged is as sparse as before."""

import contextlib
import dataclasses
import shutil
from typing import Any

import jax
import numpy as np

from experiments.compression_config import Pretrained, Synthetic
from experiments.compression_points import Compressed
from experiments.compression_subject import Subject, measure, next_token_loss, text_nats
from experiments.more_methods import trained_parameters
from zsml_jax import compression, data, peft
from zsml_jax.report import RunFolder
from zsml_jax.train import Checkpointer, fit, optimizer, schedules
from zsml_jax.typing import Array, Key, PyTree


def methods(config: Pretrained | Synthetic, subject: Subject) -> dict[str, peft.Method]:
    """Returns MoRe and LoRA with equal numbers of parameters.

    Raises:
      ValueError: if they do not fit the model, or cannot have as many.
    """
    rank = config.block_rank
    found: dict[str, peft.Method] = {
        "MoRe": peft.MoRe(targets=config.targets, blocks=config.blocks, block_rank=rank),
        "LoRA": peft.LoRA(targets=config.targets, rank=rank, alpha=2 * rank),
    }
    counts = {name: trained_parameters(subject.pretrained, method) for name, method in found.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"blocks and block_rank must give MoRe and LoRA as many parameters, got {counts}")
    return found


def recover(
    config: Pretrained | Synthetic,
    subject: Subject,
    pruned: Compressed,
    name: str,
    method: peft.Method,
    rate: float,
    folder: RunFolder,
) -> dict[str, Any]:
    """Trains an adapter beside the pruned model.

    Returns:
      What the model is worth with the adapter beside it and with the adapter merged into the weights that were kept,
      and the nats of the validation texts with the adapter beside it.
    """
    base = dataclasses.replace(subject.pretrained, params=pruned.params)
    adapter = peft.adapt(base, method, key=jax.random.key(config.seed))
    run = peft.apply_fn(base.apply)

    def loss(params: PyTree, batch: dict[str, Array], key: Key) -> tuple[Array, dict[str, Array]]:
        return next_token_loss(run(params["adapter"], params["base"], batch["tokens"]), batch["tokens"], key)

    steps = config.recovery_steps
    cosine = schedules.warmup_cosine(rate, steps=steps, warmup_steps=max(1, steps // 20))
    rules = peft.optimizer_rules(adapter, optimizer.adamw(cosine))
    path = folder.checkpoints / f"{name} {rate:g}"
    batches = data.batches(subject.rows, batch_size=config.recovery_batch, seed=config.seed)
    options: dict[str, Any] = {"every": config.checkpoint_every, "keep": 1, "config": config}
    with Checkpointer(path, **options) as checkpoints, contextlib.closing(batches):
        result = fit(
            loss,
            {"adapter": adapter, "base": base.params},
            batches,
            optimizer=optimizer.by_path(rules, clip_norm=1.0),
            steps=steps,
            key=jax.random.key(config.seed),
            checkpoints=checkpoints,
            folder=folder,
            log_every=max(1, steps // 10),
        )
    shutil.rmtree(path)
    # The parameters of the run lie on its mesh; those of the other points do not, and share one program.
    merged = jax.device_get(peft.merge(base, jax.device_get(result.params["adapter"])))
    return {
        "validation": float(np.sum(text_nats(config, base, merged, subject.validation))),
        "beside": measure(config, subject, merged),
        "merged": measure(config, subject, compression.apply_masks(merged, pruned.masks)),
    }
