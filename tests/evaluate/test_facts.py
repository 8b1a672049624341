import collections
import gzip
import json

import pytest

from zsml_jax.evaluate import facts
from zsml_jax.evaluate.facts import Fact

T_REX = {
    "predicate_id": "P19", "sub_label": "Ada", "obj_label": "London",
    "evidences": [{"masked_sentence": "Ada, from [MASK], wrote."}, {"masked_sentence": "second"}],
}  # fmt: skip
GOOGLE_RE = {
    "pred": "/people/person/date_of_birth", "sub": "/m/1", "sub_label": "Bo", "obj_label": "1900",
    "masked_sentences": ["Bo (born [MASK])."],
}  # fmt: skip
CONCEPT_NET = {"pred": "IsA", "sub": "bird", "obj_label": "animal", "masked_sentences": ["A bird is [MASK].", "x"]}
SQUAD = {"sub_label": "Squad", "obj_label": "Denver", "masked_sentences": ["They won in [MASK] ."], "id": "1"}


def write(path, *lines):
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_each_kind_of_lama_s_files_is_read(tmp_path):
    write(tmp_path / "P19.jsonl", T_REX)
    write(tmp_path / "Squad.jsonl.gz", SQUAD, {"obj_label": "no sentence"})
    write(tmp_path / "a_re.jsonl", GOOGLE_RE, CONCEPT_NET)
    assert facts.read_lama(tmp_path) == [
        Fact("Ada, from [MASK], wrote.", ("London",), "P19", "Ada"),
        Fact("They won in [MASK] .", ("Denver",), "Squad", "Squad"),
        Fact("Bo (born [MASK]).", ("1900",), "/people/person/date_of_birth", "Bo"),
        Fact("A bird is [MASK].", ("animal",), "IsA", "bird"),
    ]


def test_templates_make_the_sentences_of_relations(tmp_path):
    path = write(tmp_path / "P19.jsonl", T_REX)
    relations = write(tmp_path / "relations.jsonl", {"relation": "P19", "template": "[X] was born in [Y] ."})
    (fact,) = facts.read_lama(path, templates=facts.read_templates(relations))
    assert fact.sentence == "Ada was born in [MASK] ."
    assert (fact.before, fact.after) == ("Ada was born in ", " .")


def test_prompts_of_wikidata_end_in_one_blank(tmp_path):
    path = write(
        tmp_path / "qa.jsonl",
        {"header": True, "canary": "x"},
        {"prompt": "The capital of X is", "answers": ["A", "B"], "relation": "capital", "subject": "X"},
        {"prompt": "The capital of Y is [MASK]", "answers": ["C"], "relation": "capital", "subject": "Y"},
    )
    assert facts.read_qa_wikidata(path) == [
        Fact("The capital of X is [MASK].", ("A", "B"), "capital", "X"),
        Fact("The capital of Y is [MASK].", ("C",), "capital", "Y"),
    ]


def test_the_shared_wikidata_is_drawn_evenly(shared_data):
    everything = facts.read_qa_wikidata(shared_data / "knowledge" / "qa_wikidata.jsonl.gz")
    assert len(everything) == 20_320 and all(fact.sentence.count("[MASK]") == 1 for fact in everything)
    drawn = facts.balanced(everything, 2000)
    have, all_of = (collections.Counter(fact.relation for fact in part) for part in (drawn, everything))
    assert len(set(drawn)) == 2000 and len(have) == len(all_of) == 83
    most = max(have.values())
    assert all(count in (most, most - 1) or count == all_of[relation] for relation, count in have.items())
    assert facts.balanced(everything, 2000) == drawn != facts.balanced(everything, 2000, seed=1)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{"], "line 1 must be JSON"),
        (["[1]"], "must be an object"),
        (['{"sub_label": "x"}'], "line 1 must have 'obj_label'"),
    ],
)
def test_files_that_are_no_facts_are_refused(tmp_path, lines, message):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=message):
        facts.read_lama(path)


def test_what_else_cannot_be_read_or_drawn_is_refused(tmp_path):
    with pytest.raises(ValueError, match="path must be a file or a folder"):
        facts.read_lama(tmp_path)
    with pytest.raises(ValueError, match="must have 'prompt'"):
        facts.read_qa_wikidata(write(tmp_path / "x.jsonl", {"prompt": "a", "relation": "r", "answers": []}))
    with pytest.raises(ValueError, match="must have 'relation' and 'template'"):
        facts.read_templates(write(tmp_path / "x.jsonl", {"relation": "r"}))
    with pytest.raises(ValueError, match=r"count must lie in 1 ... 1"):
        facts.balanced([Fact("[MASK]", ("a",), "r")], 2)
