"""Where a pretrained model comes from: a folder, a pinned asset, or a repository of the hub."""

import re
from pathlib import Path

from zsml_jax.data import assets

_FILES = ["*.json", "*.txt", "*.safetensors", "pytorch_model*.bin"]


def find_folder(path_or_asset: str | Path) -> Path:
    """Returns the local folder of a model, or its GGUF file, fetching it where needed.

    Args:
      path_or_asset: an existing folder or GGUF file, the name of an asset of :mod:`zsml_jax.data.assets`, or a
        repository ``"organisation/name"`` of the hub, for which ``huggingface_hub`` must be installed.

    Returns:
      The folder or file.

    Raises:
      FileNotFoundError: if it is none of these, or cannot be fetched.
    """
    folder = Path(path_or_asset).expanduser()
    if folder.is_dir() or (folder.suffix == ".gguf" and folder.is_file()):
        return folder
    name = str(path_or_asset)
    if name in assets.names():
        return assets.path(name)
    if isinstance(path_or_asset, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name):
        return _from_hub(name)
    raise FileNotFoundError(
        f"path_or_asset must be a folder, an asset name or a hub repository 'organisation/name', got {name!r}. "
        f"There is no such folder, and the assets are: {', '.join(assets.names())}."
    )


def _from_hub(repository: str) -> Path:
    try:
        import huggingface_hub
    except ImportError as error:
        raise FileNotFoundError(
            f"there is no folder {repository!r}; to fetch it as a hub repository, install huggingface_hub"
        ) from error
    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=_FILES))
    except (OSError, ValueError, RuntimeError) as error:
        raise FileNotFoundError(
            f"there is no folder {repository!r}, and as a hub repository it could not be fetched: {error}"
        ) from error
