"""A folder of embeddings that some encoder made elsewhere, such as CLIP's of an image set.

========================  ==========================================================  ========
file                      contents
========================  ==========================================================  ========
``embeddings.npy``        ``(n, d)`` floats                                           required
``labels.npy``            ``(n,)`` class indices                                      required
``classes.json``          a list of k class names, or an object of names to prompts   required
``class_embeddings.npy``  ``(k, d)`` floats, of the prompts by the same encoder       optional
``groups.npy``            ``(n,)`` group indices                                      optional
========================  ==========================================================  ========
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

_ROWS = 1 << 16


class CachedEmbeddings(NamedTuple):
    """What a folder holds.

    Attributes:
      embeddings: one row an example.
      labels: class indices.
      class_names: the k names.
      class_prompts: the prompts of each class; where the folder has none, the class's name.
      class_embeddings: one row a class, or None.
      groups: group indices, or None.
    """

    embeddings: Float[np.ndarray, "n d"]
    labels: Int[np.ndarray, " n"]
    class_names: tuple[str, ...]
    class_prompts: tuple[tuple[str, ...], ...]
    class_embeddings: Float[np.ndarray, "k d"] | None = None
    groups: Int[np.ndarray, " n"] | None = None


def load(folder: str | Path, *, memory_map: bool = False) -> CachedEmbeddings:
    """Reads a folder and checks that its files agree.

    Args:
      folder: the folder.
      memory_map: leave ``embeddings.npy`` on disk and map it, for sets larger than memory.

    Returns:
      The arrays and the classes.

    Raises:
      ValueError: if a file is missing, is no plain array, disagrees with another in its sizes, holds a label outside of
        the classes, or holds a number that is not finite.
    """
    folder = Path(folder)
    embeddings = _array(folder, "embeddings.npy", axes=2, kinds="f", memory_map=memory_map)
    labels = _array(folder, "labels.npy", axes=1, kinds="iu")
    prompts = _classes(folder)
    n, d, k = *embeddings.shape, len(prompts)
    _require(len(labels) == n, folder, f"labels.npy has {len(labels)} entries and embeddings.npy {n} rows")
    if n:
        low, high = int(labels.min()), int(labels.max())
        _require(low >= 0 and high < k, folder, f"labels.npy holds {low}..{high}, but classes.json names {k} classes")
    _require_finite(embeddings, folder / "embeddings.npy")
    class_embeddings = groups = None
    if (folder / "class_embeddings.npy").exists():
        class_embeddings = _array(folder, "class_embeddings.npy", axes=2, kinds="f")
        shape = class_embeddings.shape
        _require(shape == (k, d), folder, f"class_embeddings.npy must have shape {(k, d)}, has {shape}")
        _require_finite(class_embeddings, folder / "class_embeddings.npy")
    if (folder / "groups.npy").exists():
        groups = _array(folder, "groups.npy", axes=1, kinds="iu")
        _require(len(groups) == n, folder, f"groups.npy has {len(groups)} entries and embeddings.npy {n} rows")
    return CachedEmbeddings(embeddings, labels, tuple(prompts), tuple(prompts.values()), class_embeddings, groups)


def save(folder: str | Path, content: CachedEmbeddings) -> None:
    """Writes a folder that :func:`load` reads; each file replaces an older one only when it is whole."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    classes = {name: list(prompts) for name, prompts in zip(content.class_names, content.class_prompts, strict=True)}
    text = json.dumps(classes, indent=1, ensure_ascii=False).encode("utf-8")
    _replace(folder / "classes.json", lambda file: file.write(text))
    arrays = {
        "embeddings.npy": content.embeddings,
        "labels.npy": content.labels,
        "class_embeddings.npy": content.class_embeddings,
        "groups.npy": content.groups,
    }
    for name, array in arrays.items():
        if array is None:
            (folder / name).unlink(missing_ok=True)
        else:
            _replace(folder / name, lambda file, array=array: np.save(file, array, allow_pickle=False))


def _replace(path: Path, write) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _array(folder: Path, name: str, *, axes: int, kinds: str, memory_map: bool = False) -> np.ndarray:
    path = folder / name
    _require(path.is_file(), folder, f"{name} is missing")
    try:
        array = np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no plain array file: {error}") from error
    kind = {"f": "floats", "iu": "integers"}[kinds]
    what = f"has {array.ndim} of {array.dtype}"
    _require(
        array.ndim == axes and array.dtype.kind in kinds, folder, f"{name} must have {axes} axes of {kind}, {what}"
    )
    return array


def _classes(folder: Path) -> Mapping[str, tuple[str, ...]]:
    path = folder / "classes.json"
    _require(path.is_file(), folder, "classes.json is missing")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        _require(len(set(content)) == len(content), folder, "classes.json names a class twice")
        classes = {name: (name,) for name in content}
    elif isinstance(content, dict):
        classes = {
            name: (prompts,) if isinstance(prompts, str) else tuple(prompts) for name, prompts in content.items()
        }
        unprompted = [name for name, prompts in classes.items() if not prompts]
        _require(not unprompted, folder, f"classes.json has no prompt for {', '.join(unprompted)}")
    else:
        raise ValueError(f"{path} must be a list of class names, or an object of names to prompts")
    _require(len(classes) >= 2, folder, f"classes.json must name at least two classes, names {len(classes)}")
    return classes


def _require_finite(array: np.ndarray, path: Path) -> None:
    for start in range(0, len(array), _ROWS):
        finite = np.isfinite(array[start : start + _ROWS]).all(axis=1)
        if not finite.all():
            raise ValueError(f"{path} must be finite, but row {start + int(np.argmin(finite))} is not")


def _require(condition: bool, folder: Path, message: str) -> None:
    if not condition:
        raise ValueError(f"{folder}: {message}")
