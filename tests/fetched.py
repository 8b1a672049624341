"""Real assets, for tests that skip where they cannot be had."""

from pathlib import Path

import pytest

from zsml_jax.data import assets


def fetched(name: str, file: str | None = None) -> Path:
    """Returns the asset's folder, or one file of it; skips the test that asks where it cannot be fetched."""
    try:
        return assets.path(name, file)
    except assets.AssetError as error:
        pytest.skip(f"the asset {name} cannot be fetched here: {error}")
