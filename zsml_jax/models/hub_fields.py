"""Fields of ``config.json`` that families read alike."""

from collections.abc import Mapping
from typing import Any

#: Spellings of transformers 4 that the written files replace: ``rope_parameters``, ``dtype``, ``text_config``.
OLD_SPELLINGS = (
    *("rope_theta", "rope_scaling", "rotary_pct", "rotary_emb_base", "partial_rotary_factor"),
    *("torch_dtype", "text_config_dict", "vision_config_dict"),
)


def refuse(hub: Mapping[str, Any], **supported: Any) -> None:
    """Checks fields of which one value is supported, which is also the one where they are absent.

    Args:
      hub: the fields of the file.
      **supported: by name, the value.

    Raises:
      ValueError: if one has another value.
    """
    for field, value in supported.items():
        if hub.get(field, value) != value:
            raise ValueError(f"config.json: {field} is {hub[field]!r}, and only {value!r} is supported")
