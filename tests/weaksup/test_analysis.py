import warnings

import jax
import numpy as np
import pytest

from zsml_jax import weaksup
from zsml_jax.weaksup import synthetic


def draw(k=3, n=200):
    problem = synthetic.independent_votes(
        jax.random.key(0), n, np.array([0.9, 0.7, 0.6, 0.5]), k=k, propensities=np.array([0.9, 0.5, 0.3, 0.1])
    )
    return np.asarray(problem.votes), np.asarray(problem.labels)


@pytest.mark.oracle
def test_the_figures_are_those_of_snorkels_analysis():
    labeling = pytest.importorskip("snorkel.labeling", reason="needs the oracle extra")
    votes, labels = draw()
    ours = weaksup.analyze(votes, 3, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy tells Snorkel of its plans
        peer = labeling.LFAnalysis(votes)
        expected = {
            "coverage": peer.lf_coverages(),
            "overlap": peer.lf_overlaps(),
            "conflict": peer.lf_conflicts(),
            "accuracy": peer.lf_empirical_accuracies(labels),
            "any_coverage": peer.label_coverage(),
            "any_overlap": peer.label_overlap(),
            "any_conflict": peer.label_conflict(),
        }
        polarities = peer.lf_polarities()
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(ours, name), value, atol=1e-6, err_msg=name)
    assert [np.flatnonzero(row).tolist() for row in ours.polarity] == polarities


def test_each_figure_counted_by_hand():
    votes = np.array([[0, 1, -1], [0, -1, -1], [1, 1, -1], [-1, -1, -1]])
    found = weaksup.analyze(votes, 2, np.array([0, 1, 1, 0]))
    np.testing.assert_allclose(found.coverage, [0.75, 0.5, 0])
    np.testing.assert_allclose(found.overlap, [0.5, 0.5, 0])
    np.testing.assert_allclose(found.conflict, [0.25, 0.25, 0])
    np.testing.assert_allclose(found.accuracy, [2 / 3, 0.5, 0], rtol=1e-6)
    assert found.polarity.tolist() == [[True, True], [False, True], [False, False]]
    assert [float(x) for x in (found.any_coverage, found.any_overlap, found.any_conflict)] == [0.75, 0.5, 0.25]


def test_blocks_of_rows_add_up():
    votes, labels = draw(n=9000)
    whole, half = weaksup.analyze(votes, 3, labels), weaksup.analyze(votes[:4500], 3, labels[:4500])
    rest = weaksup.analyze(votes[4500:], 3, labels[4500:])
    np.testing.assert_allclose(whole.conflict, (half.conflict + rest.conflict) / 2, atol=1e-6)


def test_the_table_names_functions_and_their_classes():
    votes, _ = draw()
    table = weaksup.analyze(votes, 3).table(["a", "b", "c", "d"]).to_markdown()
    assert "| a        | 0, 1, 2" in table
    assert "–" in table  # no accuracy without labels
    with pytest.raises(ValueError, match="names must name each of the 4 functions, got 1"):
        weaksup.analyze(votes, 3).table(["a"])


@pytest.mark.oracle
def test_snorkels_labelling_functions_plug_in():
    labeling = pytest.importorskip("snorkel.labeling", reason="needs the oracle extra")

    @labeling.labeling_function()
    def short(x):
        return 1 if len(x["text"]) < 5 else -1

    rows = [{"text": "ham"}, {"text": "a longer one"}]
    assert weaksup.apply([short, lambda row: None], rows).tolist() == [[1, -1], [-1, -1]]


def test_a_function_that_gives_no_class_is_named():
    def vague(row):
        return "yes"

    with pytest.raises(ValueError, match="vague gave 'yes' on row 0"):
        weaksup.apply([vague], [1])
    with pytest.raises(ValueError, match="functions must hold at least one"):
        weaksup.apply([], [1])
    with pytest.raises(ValueError, match="rows must hold at least one"):
        weaksup.apply([vague], [])
