"""Pretrained models in Flax Linen: weights and tokenizers in; logits, hidden states and sentence embeddings out.

Start with :func:`load`, which reads a folder in the hub's layout, a GGUF file or a pinned asset into a
:class:`Pretrained`; :func:`save` writes it back, :func:`zsml_jax.models.generate.generate` continues texts, and
:func:`text_encoder` makes a sentence encoder. A model is plain functions of a parameter dict:
``pretrained.apply(params, tokens, attention_mask)`` goes through ``jit``, ``vmap`` and ``grad``.
"""

from zsml_jax.models import generate
from zsml_jax.models.embed import encode, text_encoder
from zsml_jax.models.embed_images import encode_images, image_encoder
from zsml_jax.models.pretrained import Pretrained, load
from zsml_jax.models.sampling import Sampling
from zsml_jax.models.save import save
from zsml_jax.models.sentence import SentenceConfig
from zsml_jax.models.tokenizer import Tokenizer, load_tokenizer

__all__ = [
    "Pretrained",
    "Sampling",
    "SentenceConfig",
    "Tokenizer",
    "encode",
    "encode_images",
    "generate",
    "image_encoder",
    "load",
    "load_tokenizer",
    "save",
    "text_encoder",
]
