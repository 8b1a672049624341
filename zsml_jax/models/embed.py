"""Texts to vectors with a pretrained sentence encoder."""

import functools
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int32

from zsml_jax.models.batches import Batch, pad_rows, plan_batches
from zsml_jax.models.clip import ClipOutput
from zsml_jax.models.embedding_cache import corpus_key, read_embeddings, write_embeddings
from zsml_jax.models.pretrained import Pretrained, load
from zsml_jax.models.sentence import SentenceConfig, pool
from zsml_jax.models.tokenizer import Tokenizer, check_texts
from zsml_jax.report import progress
from zsml_jax.typing import Array, Encoder, Params

_LONG_WORK = 32  # batches, from which on progress is shown


def encode(
    pretrained: Pretrained,
    texts: Sequence[str],
    *,
    batch_size: int | None = None,
    cache: bool = True,
    mesh: Mesh | None = None,
) -> Float[np.ndarray, "n e"]:
    """Embeds texts, as the model's own files say: cut to its length, pooled, normalised.

    Each distinct text is computed once, in batches of a handful of shapes, and the result is kept on disk under
    everything that it depends on: weights, configuration and token ids.

    Args:
      pretrained: a model with a tokenizer.
      texts: the texts.
      batch_size: texts per batch at the model's maximal length; batches of shorter texts hold more. None stands for
        :func:`default_batch_size`.
      cache: whether to look for the result on disk, and to keep it there.
      mesh: devices that share each batch, with ``Auto`` axes; the default device if None.

    Returns:
      float32 embeddings in the order of the texts.

    Raises:
      ValueError: if there are no texts, one is not a string, the model has no tokenizer or not the one of its weights,
        an embedding is not finite, or ``batch_size`` or ``mesh`` is not usable.
    """
    check_texts(texts, "texts")
    tokenizer, sentence = pretrained.tokenizer, pretrained.sentence
    if tokenizer is None:
        raise ValueError("pretrained must have a tokenizer to encode texts; its folder holds no tokenizer files")
    if batch_size is None:
        batch_size = default_batch_size()
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if mesh is not None and any(kind != AxisType.Auto for kind in mesh.axis_types):
        raise ValueError(f"mesh must have Auto axes only, got {mesh.axis_types}")
    max_length = min(sentence.max_length or tokenizer.max_length, tokenizer.max_length)
    sequences, place = _distinct(tokenizer.ragged(_prepared(texts, sentence), max_length=max_length))
    largest = max(int(sequence.max()) for sequence in sequences)
    if largest >= pretrained.config.vocab_size:
        raise ValueError(
            f"pretrained must have one vocabulary: its tokenizer gives the id {largest}, "
            f"and its embedding has {pretrained.config.vocab_size} rows"
        )
    key = ""
    if cache:
        # The same weights give other digits on another backend or at another precision.
        numerics = (jax.default_backend(), jax.config.jax_default_matmul_precision)  # pyrefly: ignore
        key = corpus_key(pretrained.params, ("embeddings 1", pretrained.config, sentence, numerics), sequences)
        if (found := read_embeddings(key, len(sequences))) is not None:
            return found[place]
    devices = 1 if mesh is None else mesh.size
    lengths = [len(sequence) for sequence in sequences]
    batches = plan_batches(lengths, max_length=max_length, batch_size=batch_size, multiple_of=devices)
    embeddings = np.concatenate(list(_embedded(pretrained, sequences, batches, tokenizer, mesh)))
    embeddings = embeddings[np.argsort(np.concatenate([batch.rows for batch in batches]))]
    if not np.isfinite(embeddings).all():
        raise ValueError(f"pretrained gives embeddings that are not finite, with weights of {pretrained.config.dtype}")
    if cache:
        write_embeddings(key, embeddings)
    return embeddings[place]


def text_encoder(
    source: str | Path | Pretrained, *, batch_size: int | None = None, cache: bool = True, mesh: Mesh | None = None
) -> Encoder:
    """Returns a function that embeds a list of texts, for :func:`zsml_jax.zeroshot.class_head` and its kin.

    Args:
      source: a loaded model, or what :func:`zsml_jax.models.load` takes.
      batch_size: as for :func:`encode`.
      cache: as for :func:`encode`.
      mesh: as for :func:`encode`.

    Returns:
      The function, from n strings to an array ``(n, e)``.
    """
    pretrained = source if isinstance(source, Pretrained) else load(source)
    return functools.partial(encode, pretrained, batch_size=batch_size, cache=cache, mesh=mesh)


def default_batch_size() -> int:
    """Returns the rows of a batch at full length: few on CPU, where activations should stay near the caches."""
    return 8 if jax.default_backend() == "cpu" else 128


def _prepared(texts: Sequence[str], sentence: SentenceConfig) -> list[str]:
    return [text.lower() for text in texts] if sentence.lowercase else list(texts)


def _distinct(sequences: list[Int32[np.ndarray, " _"]]) -> tuple[list[Int32[np.ndarray, " _"]], np.ndarray]:
    """The distinct sequences in an order of their own, and the place of each text among them."""
    contents = [sequence.tobytes() for sequence in sequences]
    place_of = {content: i for i, content in enumerate(sorted(set(contents)))}
    return [np.frombuffer(content, np.int32) for content in place_of], np.array([place_of[c] for c in contents])


def _embedded(
    pretrained: Pretrained,
    sequences: list[np.ndarray],
    batches: list[Batch],
    tokenizer: Tokenizer,
    mesh: Mesh | None,
) -> Iterator[np.ndarray]:
    """The embeddings of each batch; the next batch is under way while one is fetched."""
    params, rows = pretrained.params, None
    if mesh is not None:
        params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        rows = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    running: deque[tuple[Batch, Array]] = deque()
    for batch in progress(batches, "embedding") if len(batches) >= _LONG_WORK else batches:
        inputs = jax.device_put(pad_rows(sequences, batch, tokenizer.pad_id), rows)
        running.append((batch, _embed(params, *inputs, module=pretrained.module, sentence=pretrained.sentence)))
        if len(running) > 1:
            yield _fetched(*running.popleft())
    while running:
        yield _fetched(*running.popleft())


def _fetched(batch: Batch, vectors: Array) -> np.ndarray:
    return np.asarray(vectors)[: len(batch.rows)]


@functools.partial(jax.jit, static_argnames=("module", "sentence"))
def _embed(params: Params, ids: Array, mask: Array, *, module: nn.Module, sentence: SentenceConfig) -> Array:
    output: Any = module.apply({"params": params}, ids, mask)
    if isinstance(output, ClipOutput) and output.text is not None:
        return output.text
    return pool(output.last, mask, sentence)
