import itertools

import numpy as np
import pytest

from tests.zeroshot.trees import leaves, random_tree
from zsml_jax.zeroshot import locus, loki
from zsml_jax.zeroshot.metric_space import CompleteMetric, TreeMetric, graph_metric, grid_metric

#: The centre c, three legs of length two that end in a, b and e, and one leaf f beside the centre.
SPIDER = [
    ("c", "a1", 1.0),
    ("a1", "a", 1.0),
    ("c", "b1", 1.0),
    ("b1", "b", 1.0),
    ("c", "e1", 1.0),
    ("e1", "e", 1.0),
    ("c", "f", 1.0),
]


def test_the_spider_refutes_lemma_a7():
    spider = TreeMetric(SPIDER, classes=("a", "b", "e", "f"))
    third = np.full((1, 3), 1 / 3)
    costs = loki.expected_cost(third, spider, observed=("a", "b", "e"))
    np.testing.assert_allclose(costs[0], [32 / 3, 32 / 3, 32 / 3, 9.0], rtol=1e-6)
    assert "f" in locus.locus(spider, ("a", "b", "e"))
    assert "f" not in locus.pairwise_locus(spider, ("a", "b", "e"))


def test_grids_of_weights_of_step_one_over_the_diameter_miss_reachable_classes():
    missed = 0
    for seed in range(3):
        edges = random_tree(seed, 24, unit=True)
        tips = leaves(edges)
        metric = TreeMetric(edges, classes=tips)
        observed = tips[:2]
        squared = np.asarray(metric.distances(np.arange(len(tips))[:, None], np.arange(2)[None])) ** 2
        steps = np.arange(int(metric.diameter) + 1) / int(metric.diameter)
        on_grid = set()
        for s in steps:
            cost = squared @ [1 - s, s]
            on_grid |= {tips[i] for i in np.flatnonzero(cost <= cost.min() + 1e-9)}
        exact = locus.locus(metric, observed)
        assert on_grid <= exact
        missed += on_grid < exact
    assert missed > 0


@pytest.mark.parametrize("seed", range(5))
def test_the_steiner_tree_is_what_the_linear_programmes_find(seed):
    edges = random_tree(seed, 14)
    rng = np.random.default_rng(seed)
    observed = rng.choice(14, 4, replace=False).tolist()
    tree, graph = TreeMetric(edges), graph_metric(edges)
    assert locus.locus(tree, observed) == locus.locus(graph, observed) == locus.pairwise_locus(graph, observed)


def test_every_decoded_class_is_in_the_locus():
    edges = random_tree(1, 20)
    tips = leaves(edges)
    metric = TreeMetric(edges, classes=tips)
    observed = tips[:3]
    probs = np.random.default_rng(1).dirichlet(np.ones(3), size=2000)
    decoded = {metric.classes[i] for i in loki.decode(probs, metric, observed=observed)}
    assert decoded <= locus.locus(metric, observed)


def test_the_leaves_are_the_minimum_identifying_cover_of_a_tree():
    edges = random_tree(2, 12)
    tree = TreeMetric(edges)
    cover = locus.minimum_tree_cover(tree)
    assert sorted(cover) == sorted(leaves(edges))
    assert locus.is_cover(tree, cover)
    assert locus.is_identifying(tree, cover)
    for name in cover:
        assert not locus.is_cover(tree, [other for other in cover if other != name])


def test_two_corners_cover_a_grid_and_four_identify_it():
    grid = grid_metric((3, 4))
    two = locus.minimum_grid_cover((3, 4))
    four = locus.minimum_grid_cover((3, 4), identifying=True)
    assert two == ((0, 0), (2, 3))
    assert len(four) == 4
    assert locus.is_cover(grid, two)
    assert not locus.is_identifying(grid, two)
    assert locus.is_identifying(grid, four)
    assert not any(locus.is_cover(grid, [point]) for point in grid.classes)


def test_on_the_complete_graph_only_all_classes_cover():
    complete = CompleteMetric("abcd")
    assert locus.locus(complete, "ab") == {"a", "b"}
    assert locus.is_cover(complete, "abcd")


def test_the_greedy_leaf_cover_covers_and_needs_all_that_it_has():
    edges = random_tree(4, 10, unit=True)
    metric = TreeMetric(edges, classes=leaves(edges))
    cover = locus.greedy_leaf_cover(metric)
    assert locus.is_cover(metric, cover)
    assert not any(locus.is_cover(metric, set(cover) - {name}) for name in cover if len(cover) > 1)


@pytest.mark.parametrize("seed", range(4))
def test_the_next_class_adds_most_to_the_steiner_tree(seed):
    edges = random_tree(seed, 30, unit=True)
    tree = TreeMetric(edges)
    observed = leaves(edges)[:3]
    chosen = locus.next_class(tree, observed)
    gains = {y: len(locus.locus(tree, [*observed, y])) for y in tree.classes}
    assert gains[chosen] == max(gains.values())
    graph = graph_metric(edges)
    assert locus.next_class(graph, locus.locus(tree, observed)) == chosen


def test_nothing_is_left_to_observe_in_the_end():
    tree = TreeMetric(random_tree(5, 10))
    observed = list(tree.classes[:2])
    for _ in itertools.count():
        if locus.is_cover(tree, observed):
            break
        observed.append(locus.next_class(tree, observed))
    with pytest.raises(ValueError, match="none to observe"):
        locus.next_class(tree, observed)


def test_unknown_and_missing_ids_are_refused():
    tree = TreeMetric([("a", "b", 1.0)])
    with pytest.raises(ValueError, match="'q'"):
        locus.locus(tree, ["q"])
    with pytest.raises(ValueError, match="at least one"):
        locus.locus(tree, [])
    with pytest.raises(ValueError, match="all its nodes"):
        locus.minimum_tree_cover(TreeMetric([("a", "b", 1.0)], classes=["a"]))
