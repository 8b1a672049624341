"""The experiment on selection bias: questions are fair, OTTER evens out letters, and the report has the table."""

import json

import numpy as np
import pytest

from experiments import runner, selection_bias
from experiments.selection_bias import Config, judged, of_facts
from tests.evaluate.tiny_texts import tiny_gpt2
from zsml_jax.evaluate.facts import Fact

FACTS = [
    Fact(f"The {relation} of S{i} is [MASK].", (f"{relation} {i % 5}",), relation)
    for relation in ("capital", "colour")
    for i in range(12)
]


def test_right_options_stand_at_every_letter_equally_often_and_wrong_ones_are_wrong():
    prompts, labels = of_facts(FACTS, Config(num_facts=16))
    assert np.bincount(labels).tolist() == [4, 4, 4, 4]
    for prompt, label in zip(prompts, labels, strict=True):
        asked, *options, end = prompt.splitlines()
        (fact,) = [fact for fact in FACTS if asked == f"Question: {fact.before.rstrip()}"]
        assert end == "Answer:" and [line[:3] for line in options] == ["A. ", "B. ", "C. ", "D. "]
        words = [line[3:] for line in options]
        assert words[label] == fact.answers[0] and len(set(words)) == 4
        assert all(word.startswith(fact.relation) for word in words)


def test_otter_takes_away_a_preference_for_a_letter_and_leaves_what_is_known():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    known = np.log(0.1 + np.eye(4)[labels] * (rng.random((200, 1)) < 0.7) + 0.05 * rng.random((200, 4)))
    biased = known + np.array([3.0, 0.0, 0.0, 0.0])
    found = judged(biased, labels)
    assert found["naive"]["chosen"][0] == 200 and found["naive"]["rstd"] == pytest.approx(np.sqrt(3) / 4)
    assert found["OTTER"]["rstd"] < 0.15 and found["OTTER"]["accuracy"][0] > 0.6 > found["naive"]["accuracy"][0]
    assert found["OTTER"]["chosen"].sum() == 200 and abs(found["OTTER"]["chosen"] - 50).max() <= 3


@pytest.mark.slow
def test_the_report_has_both_sets_and_the_published_table(tmp_path, monkeypatch):
    monkeypatch.setattr(selection_bias.models, "load", lambda source: tiny_gpt2().replace())
    facts, truthful = tmp_path / "facts.jsonl", tmp_path / "truthful.jsonl"
    rows = [{"prompt": f"S{i} is", "answers": [f"{i % 5}"], "relation": "r"} for i in range(12)]
    facts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"header": True}, *({"question": f"{i}?", "mc_choices": ["y", "n", "m"], "mc_label": 0} for i in range(6))]
    truthful.write_text("".join(json.dumps(row) + "\n" for row in rows))
    # The tiny model reads few tokens: three letters, in prompts that fit.
    arguments = ["smollm2", "--facts", str(facts), "--truthful", str(truthful), "--num-facts", "8", "--options", "3"]
    monkeypatch.setattr(selection_bias, "next_word_log_probs", lambda model, prompts, letters: np.log(
        np.random.default_rng(0).dirichlet(np.ones(len(letters)), len(prompts)).astype(np.float32)
    ))  # fmt: skip
    folder = runner.main(selection_bias.run, "selection_bias", [*arguments, "--runs-dir", str(tmp_path / "runs")])
    report = (folder.path / "report.md").read_text()
    assert "qa_wikidata" in report and "TruthfulQA" in report and "Llama-2-7b" in report
    assert (folder.path / "letters_0.png").is_file() and "33 % of the time" in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "facts must name the JSON lines"),
        (("--facts", "x", "--options", "1"), "options must be 2 to 10"),
        (("--facts", "/nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        runner.main(selection_bias.run, "selection_bias", ["smollm2", *arguments, "--runs-dir", str(tmp_path / "runs")])


def test_too_few_facts_are_refused():
    with pytest.raises(ValueError, match="num_facts must be at most 24"):
        of_facts(FACTS, Config(num_facts=25))
