import networkx
import numpy as np
import pytest

from zsml_jax.curvature import links
from zsml_jax.data import graphs

RNG = np.random.default_rng(0)


def random_graph(n=40, share=0.15, seed=0):
    rng = np.random.default_rng(seed)
    rows = [(f"g{i:02}", f"g{j:02}") for i in range(n) for j in range(i) if rng.random() < share or j == i - 1]
    return graphs.from_edges(rows, name=f"random {seed}")


@pytest.fixture(scope="module")
def parts():
    return links.split(random_graph(), random_graph(seed=1), seed=0, fewest=10)


def as_set(pairs):
    return {tuple(pair) for pair in pairs.tolist()}


def test_no_edge_is_in_two_splits_and_none_is_lost(parts):
    held = [parts.train, parts.validation[0], parts.test[0]]
    assert set.union(*map(as_set, held)) == as_set(random_graph().pairs)
    assert sum(map(len, held)) == len(random_graph().pairs)


def test_held_out_edges_never_disconnect_the_training_graph(parts):
    assert parts.training_graph().components().max() == 0


def test_novel_edges_are_those_of_the_other_graph_alone_by_id(parts):
    mine, other = random_graph(), random_graph(seed=1)
    by_id = lambda g: {frozenset((g.nodes[a], g.nodes[b])) for a, b in g.pairs}
    found = {frozenset((parts.nodes[a], parts.nodes[b])) for a, b in parts.novel[0]}
    assert found == by_id(other) - by_id(mine)
    # The release compared positions: with the nodes in another order the same edges must come out.
    order = RNG.permutation(len(other))
    shuffled = links.novel_pairs(mine, other.take(order))
    assert as_set(shuffled) == as_set(parts.novel[0])


def test_genes_that_the_graph_lacks_are_left_out_of_the_novel_edges():
    mine = graphs.from_edges([("a", "b"), ("b", "c")])
    other = graphs.from_edges([("a", "c"), ("a", "x"), ("x", "y"), ("b", "a")])
    assert links.novel_pairs(mine, other).tolist() == [[0, 2]]


def test_negatives_are_no_edges_of_either_graph_and_no_two_splits_share_one(parts):
    negatives = [part[1] for part in (parts.validation, parts.test, parts.novel)]
    for pairs in negatives:
        assert not parts.forbidden[pairs[:, 0], pairs[:, 1]].any() and (pairs[:, 0] < pairs[:, 1]).all()
    assert len(set.union(*map(as_set, negatives))) == sum(map(len, negatives))


def test_negatives_have_the_degrees_of_edges_more_than_pairs_at_random_have():
    hubs = networkx.barabasi_albert_graph(120, 3, seed=0)
    graph = graphs.from_networkx(hubs)
    parts = links.split(graph, seed=0)
    degrees = np.log(parts.adjacency().sum(axis=0))
    mean = lambda pairs: degrees[pairs].sum(axis=1).mean()
    positives, negatives = parts.test
    at_random = 2 * degrees.mean()
    assert abs(mean(negatives) - mean(positives)) < 0.5 * abs(at_random - mean(positives))


def test_scores_without_training_are_those_of_networkx():
    graph = random_graph(15, 0.3)
    peer = networkx.Graph([(graph.nodes[a], graph.nodes[b]) for a, b in graph.pairs])
    found, shared = links.adamic_adar(graph.adjacency()), links.common_neighbours(graph.adjacency())
    place = {node: i for i, node in enumerate(graph.nodes)}
    for a, b, value in networkx.adamic_adar_index(peer, [(u, v) for u in peer for v in peer if u < v]):
        np.testing.assert_allclose(found[place[a], place[b]], value, rtol=1e-9)
        assert shared[place[a], place[b]] == len(list(networkx.common_neighbors(peer, a, b)))


def test_a_split_that_would_be_too_small_or_has_no_novel_edge_is_refused():
    graph = random_graph(12)
    with pytest.raises(ValueError, match=r"validation edges, fewer than 20"):
        links.split(graph, seed=0)
    with pytest.raises(ValueError, match=r"has 0 novel edges .*, fewer than 2"):
        links.split(random_graph(), random_graph(), seed=0, fewest=2)
    with pytest.raises(ValueError, match="shares whose sum is below 1"):
        links.split(graph, seed=0, validation=0.6, test=0.5)
    tree = graphs.from_edges([(f"{i:02}", f"{i + 1:02}") for i in range(30)])
    with pytest.raises(ValueError, match="0 edges that can be held out without disconnecting"):
        links.split(tree, seed=0, fewest=2)


def test_graphs_in_another_order_of_nodes_are_refused():
    graph = random_graph()
    with pytest.raises(ValueError, match="differ at 0"):
        links.require_same_nodes(graph, graph.take(np.arange(len(graph))[::-1]))
    links.require_same_nodes(graph, graph)
