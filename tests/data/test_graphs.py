import gzip

import networkx
import numpy as np
import pytest

from zsml_jax.data import graphs


def test_self_loops_and_repeats_of_a_type_are_left_out_and_other_types_kept():
    rows = [("b", "a"), ("a", "b"), ("b", "a"), ("b", "a"), ("c", "c")]
    graph = graphs.from_edges(rows, types=["x", "x", "x", "y", "x"])
    assert graph.nodes == ("a", "b", "c")
    assert [(graph.nodes[i], graph.nodes[j], kind) for (i, j), kind in zip(graph.edges, graph.types, strict=True)] == [
        ("b", "a", "x"),
        ("a", "b", "x"),
        ("b", "a", "y"),
    ]
    assert graph.pairs.tolist() == [[0, 1]]


def test_distances_components_and_neighbours_are_those_of_networkx():
    peer = networkx.gnp_random_graph(30, 0.07, seed=1)
    for i, (a, b) in enumerate(peer.edges):
        peer.edges[a, b]["length"] = 1.0 + i % 3
    graph = graphs.from_networkx(peer, weight="length")
    lengths = dict(networkx.all_pairs_dijkstra_path_length(peer, weight="length"))
    expected = np.array([[lengths[a].get(b, np.inf) for b in peer] for a in peer])
    np.testing.assert_array_equal(graph.distances(), expected)
    np.testing.assert_array_equal(graph.distances(np.array([3, 4])), expected[3:5])
    np.testing.assert_array_equal(graph.adjacency(), networkx.to_numpy_array(peer) > 0)
    largest = max(networkx.connected_components(peer), key=len)
    assert set(graph.largest_component().nodes) == {str(node) for node in largest}


def test_of_two_edges_of_a_pair_the_shorter_is_its_length():
    graph = graphs.from_edges([("a", "b"), ("b", "a")], weights=[3.0, 2.0])
    assert graph.distances()[0, 1] == 2


def test_subgraphs_keep_ids_and_the_order_that_was_asked_for():
    graph = graphs.from_edges([("a", "b"), ("b", "c"), ("c", "d")], types=["x", "y", "x"])
    part = graph.induced(["d", "zz", "c", "b", "c"], "part")
    assert part.nodes == ("d", "c", "b") and part.name == "part"
    assert {frozenset((part.nodes[i], part.nodes[j])) for i, j in part.pairs} == {frozenset("cd"), frozenset("bc")}
    by_type = graph.by_type()
    assert [(kind, part.name, len(part.edges)) for kind, part in by_type.items()] == [
        ("x", "graph x", 2),
        ("y", "graph y", 1),
    ]
    assert graph.of_types(["y"]).pairs.tolist() == [[1, 2]] and graph.of_types(["y"]).nodes == graph.nodes
    with pytest.raises(ValueError, match="types must be of this graph. The types are: x, y"):
        graph.of_types(["q"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"edges": [("a", "b")], "nodes": ["a", "b", "a"]}, "nodes must be different, got 'a' twice"),
        ({"edges": [("gene1", "x")], "nodes": ["gene1", "gene2"]}, r"known nodes, got \('gene1', 'x'\)"),
        ({"edges": [("a", "b")], "weights": [float("nan")]}, r"positive and finite, got nan for \('a', 'b'\)"),
        ({"edges": [("a", "b")], "weights": [0.0]}, "positive and finite, got 0.0"),
        ({"edges": [("a", "b")], "types": []}, "types and weights must be one for each of 1 edges"),
    ],
)
def test_graphs_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        graphs.from_edges(arguments.pop("edges"), **arguments)


def test_sif_files_are_read_plain_or_packed_with_several_targets(tmp_path):
    text = "A\tbinds\tB\tC\nD\nB\tinhibits\tA\n"
    (tmp_path / "x.sif").write_text(text)
    (tmp_path / "x.sif.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("x.sif", "x.sif.gz"):
        graph = graphs.read_sif(tmp_path / name)
        assert graph.nodes == ("A", "B", "C", "D") and graph.types == ("binds", "binds", "inhibits")
        assert graph.edges.tolist() == [[0, 1], [0, 2], [1, 0]]
    (tmp_path / "bad.sif").write_text("A\tbinds\n")
    with pytest.raises(ValueError, match="line 1: a SIF line is"):
        graphs.read_sif(tmp_path / "bad.sif")


def test_the_pathways_of_a_pathway_commons_file_are_split_by_name(tmp_path):
    head = "PARTICIPANT_A\tINTERACTION_TYPE\tPARTICIPANT_B\tINTERACTION_DATA_SOURCE\tINTERACTION_PUBMED_ID\t"
    rows = ["A\tbinds\tB\treactome\t1\tFirst;Second\t", "B\tused-by\tCHEBI:1\treactome\t\tSecond\t", "A\tx\tC\tr\t\t\t"]
    text = "\n".join([head + "PATHWAY_NAMES\tMEDIATOR_IDS", *rows, "", "PARTICIPANT\tPARTICIPANT_TYPE", "A\tProtein"])
    (tmp_path / "pc.hgnc.txt").write_text(text)
    found = graphs.read_hgnc(tmp_path / "pc.hgnc.txt")
    assert {name: graph.nodes for name, graph in found.items()} == {
        "First": ("A", "B"),
        "Second": ("A", "B", "CHEBI:1"),
    }
    (tmp_path / "other.txt").write_text("a\tb\n")
    with pytest.raises(ValueError, match="lacks PARTICIPANT_A"):
        graphs.read_hgnc(tmp_path / "other.txt")


def test_edge_lists_may_have_lengths_and_comments(tmp_path):
    (tmp_path / "x.edges").write_text("# comment\n1 2 0.5\n\n2 3 2\n")
    graph = graphs.read_edge_list(tmp_path / "x.edges")
    assert graph.nodes == ("1", "2", "3") and graph.weights.tolist() == [0.5, 2.0]
    (tmp_path / "bad.edges").write_text("1 2 x\n")
    with pytest.raises(ValueError, match=r"line 1: expected two ids and a length, got \['1', '2', 'x'\]"):
        graphs.read_edge_list(tmp_path / "bad.edges")


def test_gene_sets_are_read_from_gmt(tmp_path):
    (tmp_path / "x.gmt").write_text("one\tabout\tA\tB\ntwo\t\tC\n")
    assert graphs.read_gmt(tmp_path / "x.gmt") == {"one": ("A", "B"), "two": ("C",)}
    (tmp_path / "bad.gmt").write_text("one\tabout\n")
    with pytest.raises(ValueError, match="line 1: a GMT line"):
        graphs.read_gmt(tmp_path / "bad.gmt")


def test_types_and_missing_lengths_of_networkx_edges():
    peer = networkx.MultiDiGraph()
    peer.add_edge("a", "b", type="binds")
    peer.add_edge("a", "b", type="inhibits")
    assert graphs.from_networkx(peer).types == ("binds", "inhibits")
    with pytest.raises(ValueError, match="no 'length'"):
        graphs.from_networkx(peer, weight="length")
