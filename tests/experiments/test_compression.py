"""The compression experiment: its parts on a tiny transformer, and the whole of it, stopped and resumed."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import compression, compression_findings, runner
from experiments import compression_points as points
from experiments import compression_recovery as recovery
from experiments import compression_subject as subjects
from experiments.compression_config import Synthetic, check
from experiments.compression_findings import findings
from experiments.compression_points import Point
from experiments.compression_subject import Subject
from tests.evaluate.tiny_texts import SENTENCES, tiny_gpt2
from zsml_jax import compression as compressing
from zsml_jax.evaluate.facts import Fact
from zsml_jax.models.untied import untie

#: What a run of a minute or less needs.
SHORT = (
    *("--relations", "2", "--subjects", "16", "--objects", "4", "--width", "32", "--layers", "1"),
    *("--steps", "500", "--learning-rate", "8e-3"),
    *("--prunings", "magnitude", "--sparsities", "0.5", "0.9", "--schemes", "int8 dynamic", "--budgets", "0.5"),
    *("--combined-sparsities", "0.2", "--head-sparsities", "0.5", "--recovery-steps", "4", "--recovery-batch", "8"),
)


@pytest.fixture(scope="module")
def subject():
    """The tiny GPT-2 with two facts whose answers are one token."""
    tiny = tiny_gpt2()
    facts = [Fact("The capital of France [MASK].", (word,), "r") for word in ("is", "of")]
    stream = np.arange(256, dtype=np.int32) % 299
    return Subject(tiny, facts, {"texts": list(SENTENCES)}, list(SENTENCES), subjects.cut(stream, 16), stream)


def test_made_up_facts_give_every_subject_an_object_of_each_relation():
    config = Synthetic(relations=3, subjects=10, objects=4)
    facts, sentences = subjects.synthetic_facts(config)
    assert len(facts) == len(sentences) == 30 == len(set(sentences))
    assert {fact.sentence.replace("[MASK]", fact.answers[0]) for fact in facts} == set(sentences)
    for relation in {fact.relation for fact in facts}:
        own = [fact for fact in facts if fact.relation == relation]
        assert len({fact.subject for fact in own}) == 10 and len({fact.answers for fact in own}) == 4
    assert subjects.synthetic_facts(config) == (facts, sentences)
    assert subjects.synthetic_facts(dataclasses.replace(config, seed=1))[1] != sentences


def test_points_have_names_of_their_own_and_equal_budgets_remove_equal_numbers(subject):
    config = Synthetic(group_size=16)
    every = [*points.pruning_points(config), *points.scheme_points(config), *points.combined_points(config)]
    every += points.head_points(config)
    assert len({point.name for point in every}) == len(every) == len(set(every))
    groups = compressing.groups(subject.pretrained)
    for share, even in points.budget_points(config, subject.pretrained).items():
        removed = {p.sparsity * compressing.weights(subject.pretrained.params, groups[p.group]) for p in even}
        assert max(removed) == pytest.approx(min(removed)) and 0 < share < 1


def test_a_point_is_pruned_then_rounded(subject):
    config = Synthetic()
    point = Point("all", "magnitude", 0.5, "int8 dynamic")
    found = points.compress(config, point, subject.pretrained, None)
    assert compressing.size_report(found.stored).stored_bytes < 0.9 * sum(
        leaf.nbytes for leaf in jax.tree.leaves(subject.pretrained.params)
    )
    plain = points.compress(config, Point("all", scheme="int8"), subject.pretrained, None)
    shapes = jax.tree.map(np.shape, subject.pretrained.params)
    assert jax.tree.map(np.shape, plain.params) == shapes  # so that they run in the program of the dense model


def test_words_that_the_head_has_lost_are_found(subject):
    untied = untie(subject.pretrained)
    point = Point("head", "magnitude", 0.5, within="rows")
    found = points.compress(Synthetic(), point, untied, None)
    is_lost = points.lost_words(found.masks)
    assert is_lost.sum() == round(0.5 * untied.config.vocab_size)
    tokens = [subject.pretrained.tokenizer.encode_plain(f" {fact.answers[0]}")[0] for fact in subject.facts]
    assert compression.lost_facts(subject, is_lost) == np.mean(is_lost[tokens])
    weights = points.compress(Synthetic(), dataclasses.replace(point, within="global"), untied, None)
    assert points.lost_words(weights.masks).sum() < is_lost.sum()


def test_a_finding_is_confirmed_or_refuted_by_the_contrast_of_the_same_facts():
    config = Synthetic(sparsities=(0.5, 0.9), head_sparsities=(0.5,), prunings=("magnitude",))
    right = {"dense": 1.0, "attention": (0.9, 0.6), "feed_forward": (0.8, 0.5), "all": (0.8, 0.0)}
    ranks = lambda share: {"ranks": np.where(np.arange(100) < 100 * share, 1, 7)}
    results = {"dense": ranks(1.0)}
    for group in config.groups:
        for sparsity, share in zip(config.sparsities, right[group], strict=True):
            results[Point(group, "magnitude", sparsity).name] = ranks(share)
    results[Point("attention", scheme="int8 dynamic").name] = ranks(0.7)
    results[Point("feed_forward", scheme="int8 dynamic").name] = ranks(0.9)
    for point in points.head_points(config):
        results[point.name] = ranks(0.5)
    found = findings(config, results)
    assert [finding.verdict for finding in found] == ["confirmed"] * 3 + ["refuted", "not decided"]
    assert [finding.value[0] for finding in found] == pytest.approx([0.35, 0.25, 0.6, -0.2, 0.0], abs=1e-5)
    assert compression_findings.hits(results["dense"]).sum() == 100


@pytest.mark.slow
def test_adapters_have_as_many_parameters_and_what_is_merged_is_as_sparse(subject, tmp_path, monkeypatch):
    config = Synthetic(block_rank=4, targets=("query", "up"), recovery_steps=2, recovery_batch=4, context=16)
    methods = recovery.methods(config, subject)
    assert {recovery.trained_parameters(subject.pretrained, m) for m in methods.values()} == {2 * 4 * (32 + 80)}
    pruned = points.compress(config, Point("all", "magnitude", 0.5), subject.pretrained, None)
    seen = []
    monkeypatch.setattr(recovery, "measure", lambda config, subject, params: seen.append(params) or {"ranks": []})
    folder = runner.RunFolder.create(tmp_path, "compression", "synthetic_facts", config)
    found = recovery.recover(config, subject, pruned, "MoRe", methods["MoRe"], 1e-2, folder)
    assert np.isfinite(found["validation"])
    beside, merged = seen
    for path, mask in pruned.masks.items():
        dense, sparse = (jax.tree.leaves({path: compressing_leaf(tree, path)})[0] for tree in (beside, merged))
        assert not np.asarray(sparse)[~np.asarray(mask)].any()
        np.testing.assert_array_equal(np.asarray(sparse)[mask], np.asarray(dense)[mask])
    assert np.asarray(compressing_leaf(beside, "layers/attention/query/kernel"))[
        ~np.asarray(pruned.masks["layers/attention/query/kernel"])
    ].any()


def compressing_leaf(tree, path):
    for part in path.split("/"):
        tree = tree[part]
    return tree


@pytest.mark.slow
def test_a_stopped_study_goes_on_with_the_next_point_and_reports_all_findings(tmp_path, monkeypatch):
    arguments = ["synthetic_facts", *SHORT, "--runs-dir", str(tmp_path)]
    measure, calls = subjects.measure, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return measure(*args)

    monkeypatch.setattr(subjects, "measure", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.main(compression.run, "compression", arguments)
    folder = runner.main(compression.run, "compression", [*arguments, "--resume"])
    kept = {p.name: json.loads(p.read_text())["result"] for p in (folder.path / "results").iterdir()}
    measured = {name: value for name, value in kept.items() if " at " not in name}
    assert len(calls) == len(measured) + 1  # the point that was interrupted was measured again, no other
    dense = np.mean(np.array(kept["dense.json"]["ranks"]) == 1)
    assert dense > 0.5  # one of four objects by chance
    report = (folder.path / "report.md").read_text()
    claims = ("all modules together", "falls rapidly", "Quantising attention", "final layer is worse")
    assert all(claim in report for claim in claims)
    assert "MoRe, merged into what was kept" in report and "LoRA, adapter beside" in report
    assert all((folder.path / f"{name}.png").is_file() for name in ("pruned_magnitude", "methods_all", "final_layer"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be positive"),
        ({"sparsities": (0.5, 0.2)}, "sparsities must lie between 0 and 1 and rise"),
        ({"budgets": (1.0,)}, "budgets must lie between"),
        ({"groups": ("all", "all")}, "groups must not name anything twice"),
        ({"prunings": ("wanda",)}, "prunings must have 'magnitude'"),
        ({"recovered_sparsity": 0.55}, "recovered_sparsity must be one of"),
        ({"learning_rates": ()}, "learning_rates must name at least one"),
        ({"heads": 3}, "heads must divide the width"),
    ],
)
def test_what_cannot_be_run_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check(dataclasses.replace(Synthetic(), **changes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("smollm2_wikidata",), "facts must name files"),
        (("smollm2_wikidata", "--facts", "x", "--texts", "x", "--chats", "x", "--model", "/nowhere"), "nowhere"),
        (("smollm2_small", "--seed", "0", "--budgets", "2"), "budgets must lie between"),
    ],
)
def test_what_is_missing_is_named(tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        runner.main(compression.run, "compression", [*arguments, "--runs-dir", str(tmp_path)])
    assert not list(tmp_path.rglob("config.json"))
