"""Batches of a random-access source by grain: shuffled, divided over processes, repeated, and resumable at any batch.

Batch ``i`` of an epoch is a pure function of the seed, the epoch and ``i``. So the whole state of an iterator is a
number, which fits into the JSON beside a checkpoint, and a run may be resumed with other numbers of processes and
workers: all processes together see the same batches.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from zsml_jax.data.dataset import Dataset


@runtime_checkable
class RandomAccessSource(Protocol):
    """What :func:`batches` reads: ``tfds_source.open_source``, a list, an array, or anything with these two."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class InMemorySource:
    """The examples of a data set as dicts of ``input``, ``label`` and, where there are groups, ``group``."""

    def __init__(self, dataset: Dataset):
        self._columns: dict[str, Any] = {"input": dataset.inputs, "label": dataset.labels}
        if dataset.groups is not None:
            self._columns["group"] = dataset.groups

    def __len__(self) -> int:
        return len(self._columns["label"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: column[index] for name, column in self._columns.items()}


class Batches(Iterator[Any]):
    """An iterator over the batches of one process; :func:`batches` makes it.

    Its state is JSON. ``get_state`` and ``set_state`` are the names that grain's iterators have.
    """

    def __init__(self, dataset: Any, recipe: dict[str, Any], *, threads: int, workers: int):
        self._dataset, self._recipe, self._threads, self._workers = dataset, recipe, threads, workers
        self._next_batch = 0
        self._iterator: Any = None

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Any:
        if self._iterator is None:
            self._iterator = self._start()
        batch = next(self._iterator)
        self._next_batch += 1
        return batch

    def __len__(self) -> int:
        """The number of batches of all epochs together; a ``TypeError`` where they never end."""
        if self._recipe["epochs"] is None:
            raise TypeError("batches without an end have no length; say how many epochs there are")
        return len(self._dataset)

    def get_state(self) -> dict[str, Any]:
        """Returns the position, and the recipe that it belongs to, as a JSON-able dict."""
        return {"next_batch": self._next_batch, **self._recipe}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a position that :meth:`get_state` returned, here or in an earlier run.

        Raises:
          ValueError: if the state is of another source, batch size, seed or order; the message names the difference.
        """
        ours = {key: value for key, value in self._recipe.items() if key != "epochs"}
        different = [
            f"{key} {state.get(key)!r} and not {value!r}" for key, value in ours.items() if state.get(key) != value
        ]
        if different:
            raise ValueError(f"state is of other batches: it has {', '.join(different)}")
        position = state.get("next_batch")
        if not isinstance(position, int) or position < 0:
            raise ValueError(f"state must have a non-negative next_batch, got {position!r}")
        self.close()
        self._next_batch = position

    def close(self) -> None:
        """Stops the threads and workers; the next batch starts them again."""
        if self._iterator is not None and hasattr(self._iterator, "close"):
            self._iterator.close()
        self._iterator = None

    def _start(self) -> Any:
        import grain

        if self._next_batch >= len(self._dataset):
            return iter(())
        rest = self._dataset[self._next_batch :]
        dataset = rest.to_iter_dataset(grain.ReadOptions(self._threads, prefetch_buffer_size=2 * self._threads))
        if self._workers:
            _mark_flags_as_parsed()
            dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers))
        return iter(dataset)


def batches(
    source: RandomAccessSource | Dataset,
    *,
    batch_size: int,
    shuffle: bool = True,
    seed: int = 0,
    epochs: int | None = None,
    drop_remainder: bool = True,
    transform: Callable[[Any], Any] | None = None,
    process_index: int | None = None,
    process_count: int | None = None,
    threads: int = 4,
    workers: int = 0,
) -> Batches:
    """Returns an iterator over batches; each epoch goes once over the source, in an order of its own.

    Args:
      source: the examples; a :class:`Dataset` is read as dicts of ``input``, ``label`` and ``group``.
      batch_size: examples in a batch of all processes together; each process gets its equal part.
      shuffle: a new random order each epoch; else the source's order.
      seed: what the orders depend on.
      epochs: how often to go over the source; without end if None.
      drop_remainder: leave out the last examples of an epoch that do not fill a batch, other ones each epoch. If False,
        the last batch of an epoch is smaller, and a process's part of it smaller still or missing.
      transform: applied to each example before it is batched; it must be picklable if there are workers.
      process_index: which part is this process's; by default JAX's index.
      process_count: the number of parts; by default JAX's count.
      threads: reading threads in this process, or in each worker; 0 for none.
      workers: reading processes, for transforms that hold the interpreter's lock. A script that uses them needs the
        usual ``if __name__ == "__main__"`` guard.

    Returns:
      The iterator, with ``get_state`` and ``set_state``.

    Raises:
      ValueError: if a number is out of its range, ``process_count`` does not divide ``batch_size``, or the source is
        too small for one batch.
    """
    if (process_index is None) != (process_count is None):
        raise ValueError("process_index and process_count must be given together, or neither")
    if process_index is None or process_count is None:
        import jax

        process_index, process_count = jax.process_index(), jax.process_count()
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("process_count", process_count, 1),
        ("epochs", 1 if epochs is None else epochs, 1),
        ("threads", threads, 0),
        ("workers", workers, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index must lie in 0..{process_count - 1}, got {process_index}")
    if batch_size % process_count:
        raise ValueError(f"batch_size must be a multiple of the {process_count} processes, got {batch_size}")
    if not drop_remainder and epochs != 1 and process_count > 1:
        raise ValueError("drop_remainder must be True for several epochs on several processes, or they lose step")
    examples: Any = InMemorySource(source) if isinstance(source, Dataset) else source
    used = len(examples) - len(examples) % batch_size if drop_remainder else len(examples)
    if used < (1 if drop_remainder else process_count):
        raise ValueError(f"source must have at least one batch of {batch_size}, has {len(examples)} examples")

    import grain

    dataset = grain.MapDataset.source(examples).seed(seed)
    if shuffle:
        dataset = dataset.shuffle()
    # Strided parts: batch i of all processes together is the i-th run of batch_size examples, for every process count.
    dataset = dataset[process_index:used:process_count]
    if transform is not None:
        dataset = dataset.map(transform)
    dataset = dataset.batch(batch_size // process_count, drop_remainder=drop_remainder).repeat(epochs)
    recipe = {
        "num_examples": len(examples),
        "batch_size": batch_size,
        "shuffle": shuffle,
        "seed": seed,
        "drop_remainder": drop_remainder,
        "epochs": epochs,
    }
    return Batches(dataset, recipe, threads=threads, workers=workers)


def _mark_flags_as_parsed() -> None:
    """Grain's workers read absl flags, which raise in a program that absl did not start (grain issue 1361)."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
