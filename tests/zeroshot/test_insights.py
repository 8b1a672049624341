"""Lists that come with the package, text to vectors, and what a language model might answer."""

import hashlib
import json

import numpy as np
import pytest

from zsml_jax.zeroshot import insights, roboshot
from zsml_jax.zeroshot.head import class_head
from zsml_jax.zeroshot.insight_parsing import parse_pairs


def hashed_encoder(texts):
    """A unit vector for each text, drawn by its hash."""
    seeds = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:4], "little") for t in texts]
    rows = np.stack([np.random.default_rng(s).normal(size=64) for s in seeds])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("name", insights.names())
def test_each_list_is_sound_and_edits_the_head_of_its_own_prompts(name):
    loaded = insights.load(name)
    assert loaded.task
    assert len(loaded.class_prompts) == len(loaded.classes) >= 2
    assert len(set(loaded.harmful)) == len(loaded.harmful) >= 4
    assert len(set(loaded.helpful)) == len(loaded.helpful)
    for first, second in loaded.harmful + loaded.helpful:
        assert first != second
        assert first == first.strip()
    # An insight that names a class would put the answer into the edit (the released CelebA list does).
    words = {text for pair in loaded.helpful for text in pair}
    assert not words & {*loaded.classes, *(p for prompts in loaded.class_prompts for p in prompts)}
    head = roboshot.edit_head(class_head(hashed_encoder, loaded.class_prompts), **loaded.vectors(hashed_encoder))
    assert np.isfinite(head.vectors).all()


def test_the_names_cover_the_papers_sets_and_our_own():
    ours = {"sentiment_domains", "bbc_news", "trec"}
    papers = {"waterbirds", "celeba", "pacs", "vlcs", "cxr14", "civilcomments", "hatexplain", "amazon", "gender_bias"}
    assert set(insights.names()) == ours | papers


def test_the_group_prompts_of_waterbirds_name_each_of_the_four_groups():
    prompts = insights.load("waterbirds").group_prompts
    assert len({p for row in prompts for p in row}) == 4
    for name, row in zip(("landbird", "waterbird"), prompts, strict=True):
        assert all(f"a {name} on" in p for p in row)
        assert [any(f"{place} background" in p for p in row) for place in ("land", "water")] == [True, True]


def test_vectors_are_differences_of_embeddings_and_each_text_is_embedded_once():
    calls = []

    def encoder(texts):
        calls.append(list(texts))
        return hashed_encoder(texts)

    pairs = [("a", "b"), ("a", "c"), ("c", "b")]
    difference = insights.vectors(encoder, pairs)
    assert calls == [["a", "b", "c"]]
    a, b, c = hashed_encoder(["a", "b", "c"])
    np.testing.assert_array_equal(difference, [a - b, a - c, c - b])
    assert roboshot.fit(harmful=difference).harmful_dimension == 2


def test_half_precision_embeddings_are_subtracted_in_float32():
    encoder = lambda texts: hashed_encoder(texts).astype(np.float16)
    difference = insights.vectors(encoder, [("a", "b")])
    a, b = encoder(["a", "b"]).astype(np.float32)
    assert difference.dtype == np.float32
    np.testing.assert_array_equal(difference[0], a - b)


def test_a_kind_without_pairs_becomes_none():
    loaded = insights.load("amazon")
    assert not loaded.helpful
    assert loaded.vectors(hashed_encoder)["helpful"] is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wet ground | dry ground\nbeach | forest", [("wet ground", "dry ground"), ("beach", "forest")]),
        ("Here are some:\n1. water vs. land\n2) sea versus forest", [("water", "land"), ("sea", "forest")]),
        ("- **Feet**: webbed vs clawed", [("webbed feet", "clawed feet")]),
        ("* Waterbirds swim, whereas landbirds perch.", [("Waterbirds swim", "landbirds perch")]),
        ("a) long legs; short legs", [("long legs", "short legs")]),
        ("sea -> forest\nsea → forest\nlake <-> meadow", [("sea", "forest"), ("lake", "meadow")]),
        ("| Trait | Waterbird | Landbird |\n|---|:--|---|\n| Bill | flat | pointed |", [("flat bill", "pointed bill")]),
        ("| Water | Land |\n|---|---|\n| flat bill | pointed bill |", [("flat bill", "pointed bill")]),
        ('Sure! [["sea", "forest"], ["lake", "meadow"]]', [("sea", "forest"), ("lake", "meadow")]),
        ('[{"water": "flat bill", "land": "pointed bill"}]', [("flat bill", "pointed bill")]),
        ("[note] none\n“sea” / ‘forest’", [("sea", "forest")]),
        ("same | Same\n\n| |\n---\njust a line of prose, nothing else.", []),
        ("", []),
    ],
)  # fmt: skip
def test_pairs_are_found_in_many_forms_of_answers(text, expected):
    assert parse_pairs(text) == expected


def test_a_chat_model_is_asked_once_for_each_kind_and_its_answers_are_kept(tmp_path):
    asked = []

    def model(prompt):
        asked.append(prompt)
        return "1. sea | forest\n2. lake | meadow" if "spurious" in prompt else "webbed feet vs. clawed feet"

    cache = tmp_path / "deep" / "answers.json"
    options = {"task": "telling birds apart", "template": "a photo of a bird with {}", "cache": cache}
    found = insights.generate(model, ["landbird", "waterbird"], **options)
    assert found.harmful == (
        ("a photo of a bird with sea", "a photo of a bird with forest"),
        ("a photo of a bird with lake", "a photo of a bird with meadow"),
    )
    assert found.helpful == (("a photo of a bird with webbed feet", "a photo of a bird with clawed feet"),)
    assert len(asked) == 2
    assert all("landbird, waterbird" in prompt and "telling birds apart" in prompt for prompt in asked)
    assert insights.generate(model, ["landbird", "waterbird"], **options) == found
    assert len(asked) == 2
    assert set(json.loads(cache.read_text())) == set(asked)


def test_an_interrupted_generation_goes_on_where_it_stopped(tmp_path):
    asked, cache = [], tmp_path / "answers.json"

    def model(prompt):
        asked.append(prompt)
        if len(asked) == 2:
            raise ConnectionError("the line is down")
        return "sea | forest"

    with pytest.raises(ConnectionError):
        insights.generate(model, ["a", "b"], cache=cache)
    assert insights.generate(model, ["a", "b"], cache=cache).harmful == (("sea", "forest"),)
    assert len(asked) == 3
    assert asked[2] == asked[1]
    assert [p.name for p in tmp_path.iterdir()] == ["answers.json"]


def test_completions_of_one_stem_pair_up_by_class():
    model = lambda prompt: f"{prompt} near {'water' if 'waterbird' in prompt else 'trees'}. And more.\nAnd so on"
    found = insights.generate(model, ["a landbird", "a waterbird"], family="completion")
    assert found.harmful[0] == ("a landbird typically near trees", "a waterbird typically near water")
    assert len(found.harmful) == len(found.helpful) == 3
    three = insights.generate(model, ["a landbird", "a waterbird", "a seabird"], family="completion")
    assert len(three.harmful) == 9


def test_saved_insights_load_as_they_were(tmp_path):
    loaded = insights.load("waterbirds")
    insights.save(loaded, tmp_path / "mine.json")
    assert insights.load(tmp_path / "mine.json") == loaded


def test_bad_input_is_refused_by_name(tmp_path, unchecked_types):
    refused = lambda message: pytest.raises(ValueError, match=message)
    with refused("name must be one of amazon, bbc_news"):
        insights.load("imagenet")
    with refused("there is no file"):
        insights.load(tmp_path / "none.json")
    for text, message in (
        ("{", "must hold JSON"),
        ("[]", "must hold a JSON object, holds a list"),
        ('{"harmful": [["a"]]}', "harmful in .* must be a list of pairs of texts"),
        ("{}", "must hold harmful or helpful pairs, and holds neither"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with refused(message):
            insights.load(tmp_path / "bad.json")
    with refused("pairs must hold at least one pair"):
        insights.vectors(hashed_encoder, [])
    with refused("pairs must differ in their embeddings; .'a', 'a'. does not"):
        insights.vectors(hashed_encoder, [("a", "b"), ("a", "a")])
    with refused(r"encoder must return shape \(2, d\)"):
        insights.vectors(lambda texts: np.ones(3), [("a", "b")])
    with refused("encoder must return finite embeddings"):
        insights.vectors(lambda texts: np.full((2, 3), np.nan), [("a", "b")])
    model = lambda prompt: "I would rather not."
    with refused("generate_fn must list pairs of differences, one a line; it answered 'I would rather not.'"):
        insights.generate(model, ["a", "b"])
    with refused("generate_fn must complete a stem"):
        insights.generate(lambda prompt: "", ["a", "b"], family="completion")
    with refused("classes must hold at least two different names"):
        insights.generate(model, ["a", "a"])
    with refused("template must contain {} once"):
        insights.generate(model, ["a", "b"], template="a photo")
    with refused("family must be one of chat, completion, got 'gpt'"):
        insights.generate(model, ["a", "b"], family="gpt")
    (tmp_path / "answers.json").write_text('{"a": 1}')
    with refused("must hold answers by prompt"):
        insights.generate(model, ["a", "b"], cache=tmp_path / "answers.json")
    with refused("path must end in .json"):
        insights.save(insights.load("amazon"), tmp_path / "mine.txt")
