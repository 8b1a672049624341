"""Tiny random models that read texts: a tokenizer learned from a few sentences, and a model of its vocabulary."""

import functools

import jax

from zsml_jax.models import Pretrained
from zsml_jax.models.initialise import initialise
from zsml_jax.models.tokenizer_training import train_byte_bpe

SENTENCES = (
    "The capital of France is Paris.",
    "The capital of Germany is Berlin.",
    "The language of Brazil is Portuguese.",
    "naïve café, 東京",
)
SHAPE = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 48}


@functools.cache
def tiny_gpt2() -> Pretrained:
    """A GPT-2 whose parameters are large enough for its scores to differ."""
    tokenizer = train_byte_bpe(SENTENCES * 4, vocab_size=300)
    hub = {"model_type": "gpt2", "vocab_size": tokenizer.vocab_size, "bos_token_id": 0, "eos_token_id": 0, **SHAPE}
    model = initialise(hub, key=jax.random.key(0), tokenizer=tokenizer)
    leaves, tree = jax.tree.flatten(model.params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [0.4 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return model.replace(params=jax.tree.unflatten(tree, drawn))
