import json

import pytest

from tests.fetched import fetched
from zsml_jax.data import pathways


def test_a_file_of_graphs_is_read_in_its_order_and_cut_by_size(tmp_path):
    rows = [
        {"id": "P2", "genes": ["A", "B", "C"], "edges": [["A", "binds", "B"]]},
        {"id": "P1", "genes": ["A", "B"], "edges": []},
    ]
    (tmp_path / "graphs.json").write_text(json.dumps(rows))
    found = pathways.load(tmp_path / "graphs.json", smallest=2)
    assert [graph.name for graph in found] == ["P2", "P1"]
    assert found[0].nodes == ("A", "B", "C") and found[0].types == ("binds",)
    assert [graph.name for graph in pathways.load(tmp_path / "graphs.json", smallest=3)] == ["P2"]
    (tmp_path / "bad.json").write_text("[{}]")
    with pytest.raises(ValueError, match="a list of graphs with 'id', 'genes' and 'edges'"):
        pathways.load(tmp_path / "bad.json")


@pytest.mark.slow
def test_the_shared_file_holds_what_its_readme_says(shared_data):
    found = pathways.load(shared_data / "pathways" / "pathways.json.gz")
    assert len(found) == 1276 and len({gene for graph in found for gene in graph.nodes}) == 10_195
    assert sum(len(graph.edges) for graph in found) == 649_318


@pytest.mark.slow
def test_the_pinned_assets_give_pathways_of_reactome():
    for name in ("binn", "regulon-enrichment"):
        fetched(name)
    found = pathways.load()
    assert len(found) == 596 and found[0].name.startswith("R-HSA-")
    assert all(len(graph.edges) >= len(graph) for graph in found)


def test_the_knowledge_graphs_have_their_published_numbers_of_entities():
    fetched("pykeen")
    assert [len(pathways.knowledge_graph(name)) for name in ("nations", "umls")] == [14, 135]
    assert len(set(pathways.knowledge_graph("nations").types)) == 55
    with pytest.raises(ValueError, match="'nations' or 'umls', got 'wordnet'"):
        pathways.knowledge_graph("wordnet")
