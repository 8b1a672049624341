"""Images as arrays for an image tower: resized, cropped and normalised as ``preprocessor_config.json`` says."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32

from zsml_jax.models.json_file import read_optional_json

#: An image: a file, a PIL image, or uint8 values of shape (rows, columns) or (rows, columns, channels).
Image: TypeAlias = Any


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """What is done to an image, in this order; the defaults are CLIP's.

    Attributes:
      shortest_edge: the shorter side is resized to this; None if sides are not resized so.
      size: (rows, columns) that images are resized to without regard to their shape; None if they are not.
      crop: (rows, columns) that are cut out of the middle, with zeros where the image is smaller; None for no crop.
      resample: PIL's number of the interpolation; 3 is bicubic.
      rescale: factor on the values 0 ... 255.
      mean: subtracted from each channel after that.
      std: what each channel is divided by then.
    """

    shortest_edge: int | None = 224
    size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = (224, 224)
    resample: int = 3
    rescale: float = 1 / 255
    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)


def preprocess(images: Sequence[Image], config: ImageConfig) -> Float32[np.ndarray, "n y x c"]:
    """Resizes, crops and normalises images.

    Args:
      images: files, PIL images or uint8 arrays; all become RGB.
      config: what to do.

    Returns:
      The images, channels last.

    Raises:
      ValueError: if there are no images, one is not an image, or their final sizes differ.
    """
    if not len(images):
        raise ValueError("images must hold at least one image, got none")
    pixels = [_pixels(image, i, config) for i, image in enumerate(images)]
    if len(shapes := {array.shape for array in pixels}) > 1:
        raise ValueError(f"images must have one size after preprocessing, which has no crop here, got {sorted(shapes)}")
    scaled = np.stack(pixels).astype(np.float32) * np.float32(config.rescale)
    return (scaled - np.asarray(config.mean, np.float32)) / np.asarray(config.std, np.float32)


def read_image_config(folder: Path, image_size: int) -> ImageConfig:
    """Reads ``preprocessor_config.json``.

    Args:
      folder: the model's folder.
      image_size: rows and columns of the model's images, for a folder without the file.

    Returns:
      What the file says, CLIP's values where it says nothing.
    """
    hub = read_optional_json(folder / "preprocessor_config.json")
    size = _sides(hub.get("size", {"shortest_edge": image_size}), "shortest_edge")
    crop = _sides(hub.get("crop_size", image_size), "side")
    if not hub.get("do_resize", True):
        size = {}
    defaults = ImageConfig()
    normalize = hub.get("do_normalize", True)
    return ImageConfig(
        shortest_edge=size.get("shortest_edge"),
        size=(size["height"], size["width"]) if "height" in size else None,
        crop=_pair(crop) if hub.get("do_center_crop", True) else None,
        resample=hub.get("resample", 3),
        rescale=hub.get("rescale_factor", 1 / 255) if hub.get("do_rescale", True) else 1.0,
        mean=tuple(hub.get("image_mean", defaults.mean)) if normalize else (0.0, 0.0, 0.0),
        std=tuple(hub.get("image_std", defaults.std)) if normalize else (1.0, 1.0, 1.0),
    )


def write_image_config(config: ImageConfig) -> dict[str, Any]:
    """Returns the fields of ``preprocessor_config.json``, from which :func:`read_image_config` reads the same."""
    size: dict[str, int] = {}
    if config.size is not None:
        size = _fields(config.size)
    elif config.shortest_edge is not None:
        size = {"shortest_edge": config.shortest_edge}
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": bool(size),
        **({"size": size} if size else {}),
        "resample": config.resample,
        "do_center_crop": config.crop is not None,
        **({} if config.crop is None else {"crop_size": _fields(config.crop)}),
        "do_rescale": True,
        "rescale_factor": config.rescale,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
    }


def _pixels(image: Image, index: int, config: ImageConfig) -> np.ndarray:
    import PIL.Image

    if isinstance(image, str | Path):
        with PIL.Image.open(image) as file:
            image = file.convert("RGB")
    elif isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
        image = PIL.Image.fromarray(image)
    elif not isinstance(image, PIL.Image.Image):
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"images[{index}] must be a file, a PIL image or a uint8 array (y, x[, c]), got {found}")
    image = image.convert("RGB")
    if config.shortest_edge is not None:
        short = min(image.size)
        image = image.resize([side * config.shortest_edge // short for side in image.size], config.resample)
    elif config.size is not None:
        image = image.resize(config.size[::-1], config.resample)
    array = np.asarray(image)
    return array if config.crop is None else _center(array, config.crop)


def _center(array: np.ndarray, crop: tuple[int, int]) -> np.ndarray:
    short = [max(side - have, 0) for side, have in zip(crop, array.shape[:2], strict=True)]
    array = np.pad(array, [*(((missing + 1) // 2, missing // 2) for missing in short), (0, 0)])
    top, left = ((have - side) // 2 for have, side in zip(array.shape[:2], crop, strict=True))
    return array[top : top + crop[0], left : left + crop[1]]


def _sides(size: int | Mapping[str, int], name: str) -> Mapping[str, int]:
    """A size as a mapping; old files give a number."""
    return {name: size} if isinstance(size, int) else size


def _pair(crop: Mapping[str, int]) -> tuple[int, int]:
    return (crop["side"], crop["side"]) if "side" in crop else (crop["height"], crop["width"])


def _fields(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}
