"""A handful of made-up pathways through the whole experiment."""

import itertools
import json

import numpy as np
import pytest

from experiments import pathways, pathways_links, pathways_report, runner
from experiments.pathways_config import Config, check
from zsml_jax.data import graphs
from zsml_jax.evaluate import ranking

TINY = [
    *("--graphs", "2", "--smallest", "5", "--largest", "60", "--most", "1", "--dim", "6", "--steps", "3"),
    *("--link-graphs", "1", "--fewest", "5", "--link-dim", "6", "--hidden", "6", "--epochs", "2"),
    *("--learning-rates", "0.01", "--dropouts", "0.0"),
]


@pytest.fixture
def file(tmp_path):
    """Four graphs of 20 to 26 genes with two kinds of edges."""
    rows = []
    for number in range(4):
        rng = np.random.default_rng(number)
        n = 20 + 2 * number
        genes = [f"G{i:02}" for i in range(n)]
        edges = [[a, "binds", b] for a, b in itertools.pairwise(genes)]
        edges += [[a, "binds", b] for a in genes for b in genes if a < b and rng.random() < 0.2]
        edges += [[a, "controls-state-change-of", b] for a in genes for b in genes if a < b and rng.random() < 0.15]
        rows.append({"id": f"P{number}", "genes": genes, "edges": edges})
    (tmp_path / "graphs.json").write_text(json.dumps(rows))
    return tmp_path / "graphs.json"


@pytest.mark.slow
def test_a_run_reports_every_family_every_model_and_draws_and_goes_on_at_the_graph_where_it_was_killed(
    file, tmp_path, monkeypatch
):
    argv = ["sample", *TINY, "--graphs-file", str(file), "--runs-dir", str(tmp_path / "runs")]
    embed_graph, calls = pathways.embed_graph, []

    def killed(config, graph):
        calls.append(graph.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embed_graph(config, graph)

    monkeypatch.setattr(pathways, "embed_graph", killed)
    with pytest.raises(KeyboardInterrupt):
        runner.main(pathways.run, "pathways", argv)
    folder = runner.main(pathways.run, "pathways", [*argv, "--resume"])
    assert len(calls) == 3 and calls[1] == calls[2] != calls[0]  # the finished graph was not embedded again
    report = (folder.path / "report.md").read_text()
    for name in (
        *pathways_report.FAMILIES,
        "node2vec",
        "Laplacian",
        "product GCN",
        "kappa-GCN",
        "GraphSAGE",
        "Adamic-Adar",
    ):
        assert name in report
    assert "Does mixed curvature help?" in report
    for picture in ("signatures", "disc", "sphere", "roc_test", "roc_novel"):
        assert (folder.path / f"{picture}.png").stat().st_size > 1000
    logged = [line for line in folder.metrics() if line.get("model") == "GCN"]
    assert {line["split"] for line in logged} == {"test", "novel"}


def test_the_expected_best_of_a_budget_is_that_of_all_subsets():
    values = np.random.default_rng(0).random(7)
    for budget in (1, 3, 7, 9):
        subsets = itertools.combinations(values, min(budget, 7))
        np.testing.assert_allclose(pathways_report.expected_least(values, budget), np.mean([min(s) for s in subsets]))


def test_the_verdict_says_what_the_intervals_say():
    flat = np.array([0.2, 0.21, 0.19, 0.2])
    families = {"Euclidean": flat, "hyperbolic": flat, "spherical": flat * 0.5, "mixed": flat * 0.8}
    said = pathways_report.verdict(families)
    assert "against the Euclidean family distortion is lower (20.0 % less" in said
    assert "against the best family of one curvature distortion is higher (-60.0 % less" in said


def test_the_verdict_on_edges_pairs_the_graphs_of_two_models():
    rng = np.random.default_rng(0)
    models = {"product GCN": 1.0, "kappa-GCN": 1.0, "GCN": -1.0, "Adamic-Adar": 1.0}

    noise = rng.normal(size=(6, 2, 30))
    # Two models that score alike differ by nothing in every resample, and so by no more than nothing.
    areas = {
        name: pathways_report.pooled([(a + shift, b) for a, b in noise], ranking.roc_auc, seed=0)
        for name, shift in models.items()
    }
    assert areas["product GCN"].bounds()[1] > areas["GCN"].bounds()[2]
    said = pathways_report.links_verdict({"test": areas, "novel": areas})
    assert "In distribution the AUC of the product GCN is above that of GCN" in said
    assert "on novel edges the AUC of the product GCN is not surely different from that of Adamic-Adar (+0.000" in said


def test_graphs_without_enough_edges_are_counted_and_a_sample_without_any_is_refused(file):
    config = Config(graphs_file=file, smallest=5, fewest=5, link_graphs=2)
    found, refused = pathways_links.tasks(config, pathways.load(config))
    assert len(found) == 2 and sum(refused.values()) <= 2
    with pytest.raises(ValueError, match="no graph has enough edges for link prediction: {'with too few edges"):
        pathways_links.tasks(Config(graphs_file=file, smallest=5, fewest=200), pathways.load(config))
    complete = graphs.from_edges(list(itertools.combinations("ABCDEF", 2)), name="complete")
    path = graphs.from_edges(list(itertools.pairwise("ABCDEF")), name="path")
    assert [graph.name for graph in pathways.sample(Config(smallest=5), [complete, path])] == ["path"]
    with pytest.raises(ValueError, match="no graph has from 90 to 96 connected nodes and is not complete"):
        pathways.sample(Config(smallest=90), pathways.load(config))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graphs": 0}, "graphs must be at least 1"),
        ({"smallest": 50, "largest": 40}, "smallest must be from 3 to largest"),
        ({"dim": 8}, "dim must be at least 9"),
        ({"link_dim": 20}, "link_dim must be a multiple of 3"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check(Config(**changes))
