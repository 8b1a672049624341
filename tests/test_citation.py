"""The expected titles and authors are those of the papers' own pages (OpenReview, ACL Anthology, arXiv)."""

import importlib
import re
from pathlib import Path

import pytest

import zsml_jax
from zsml_jax.models.pretrained import FAMILIES

# The submodule of this name is shadowed by its function, on purpose.
citation = importlib.import_module("zsml_jax.citation")

SYSTEMS = {
    "otter": ("Shin, Changho", "2024", "Label Distribution Adaptation"),
    "roboshot": ("Adila, Dyah", "2024", "Zero-Shot Robustification of Zero-Shot Models"),
    "loki": ("Roberts, Nicholas", "2023", "Geometry-Aware Adaptation for Pretrained Models"),
    "more": ("Tan, Wenxuan", "2024", "10x Fewer Parameters"),
    "compression": ("Namburi, Satya Sai Srinath", "2023", "The Cost of Compression"),
    "colander": ("Vishwakarma, Harit", "2024", "Pearls from Pebbles"),
    "autows": ("Roberts, Nicholas", "2022", "AutoWS-Bench-101"),
    "curvature": ("McNeela, Daniel", "2024", "Product Manifold Representations"),
    "manticore": ("Roberts, Nicholas", "2025", "Pretrained Hybrids with {MAD} Skills"),
    "market": ("Huang, Tzu-Heng", "2023", "Train 'n Trade"),
    "alignez": ("Adila, Dyah", "2024", "Self-Generated Preferences"),
    "swim": ("Dsouza, Amanda", "2024", "Inference-time Correction"),
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_each_of_the_twelve_systems_has_its_first_author_year_and_title(name):
    first_author, year, title = SYSTEMS[name]
    entry = zsml_jax.citation(name)
    assert f"author    = {{{first_author}" in entry
    assert re.search(rf"year\s+= \{{{year}\}}", entry)
    assert title in entry


def test_citation_stays_a_function_of_the_package_after_its_module_was_imported():
    assert callable(zsml_jax.citation)
    assert zsml_jax.citation("otter").startswith("@inproceedings{shin2024otter,")


def test_several_names_are_joined_and_a_shared_entry_comes_once():
    text = zsml_jax.citation("colander", "tbal", "OTTER")
    assert re.findall(r"@\w+\{(\w+),", text) == ["vishwakarma2024colander", "vishwakarma2023tbal", "shin2024otter"]


def test_case_and_hyphens_do_not_matter():
    assert zsml_jax.citation("Prior-Matching") == zsml_jax.citation("prior_matching")


def test_an_unknown_name_is_refused_with_the_close_ones():
    with pytest.raises(ValueError, match="no citation for 'oter'; did you mean otter"):
        zsml_jax.citation("oter")
    with pytest.raises(ValueError, match="known names are otter, roboshot"):
        zsml_jax.citation("zzzzz")
    with pytest.raises(ValueError, match="name at least one of otter"):
        zsml_jax.citation()


def test_every_entry_of_the_bibliography_is_cited_by_a_name_and_has_balanced_braces_and_its_fields():
    entries = citation._entries()
    assert set(entries) == {key for keys in citation._CITES.values() for key in keys}
    for entry in entries.values():
        assert entry.count("{") == entry.count("}")
        for field in ("title", "author", "year"):
            assert len(re.findall(rf"^  {field}\s+= \{{", entry, flags=re.MULTILINE)) == 1


def test_every_family_of_models_and_every_paper_that_their_code_names_has_an_entry():
    keys = set(citation._entries())
    for model_type in FAMILIES:
        assert zsml_jax.citation(model_type)
    named = re.compile(r"([A-Z]\w+)(?: et al\.,?| and [A-Z]\w+,?| & [A-Z]\w+,?|,)? \(?((?:19|20)\d\d)\b")
    package = Path(zsml_jax.__file__).parent
    for path in [file for room in ("models", "peft", "train", "transform") for file in (package / room).rglob("*.py")]:
        for author, year in named.findall(path.read_text(encoding="utf-8")):
            assert any(key.startswith(f"{author.lower()}{year}") for key in keys), f"{path.name}: {author} {year}"
