"""A head of its own for a model whose head is its word embedding, so that one can be changed without the other."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from zsml_jax.models.bert import BertConfig
from zsml_jax.models.pretrained import Pretrained


def untie(pretrained: Pretrained) -> Pretrained:
    """Returns the same model with the word embedding copied into a kernel of the head.

    The kernel is ``head/kernel``, or ``head/decoder/kernel`` of an encoder with a head for masked words; outputs stay
    what they are.

    Raises:
      ValueError: if the model has no head over words, or one of its own already.
    """
    config: Any = pretrained.config
    is_encoder = isinstance(config, BertConfig)
    has_head = config.masked_lm if is_encoder else hasattr(config, "tied")
    if not has_head or not config.tied:
        raise ValueError(
            f"pretrained must be a model whose head over words is its word embedding, got a {pretrained.model_type!r} "
            f"with {'a head of its own' if has_head else 'no head'}"
        )
    params = pretrained.params
    embedding = params.get("embeddings", params)["word"]["embedding"]
    head = {"kernel": jnp.asarray(embedding).T}
    head = {**params["head"], "decoder": head} if is_encoder else head
    config = dataclasses.replace(config, tied=False)
    module = type(pretrained.module)(config)
    return dataclasses.replace(pretrained, params={**params, "head": head}, module=module, config=config)
