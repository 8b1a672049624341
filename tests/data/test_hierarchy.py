import json

import numpy as np
import pytest

from zsml_jax.data import hierarchy

TOY = {
    "root": "top",
    "classes": [
        {"index": 1, "wnid": "dog", "lemma": "dog", "gloss": "it barks"},
        {"index": 0, "wnid": "cat", "lemma": "cat", "gloss": "it purrs"},
        {"index": 2, "wnid": "car", "lemma": "car", "gloss": "it rolls"},
    ],
    "internal_nodes": {n: {"lemma": n.upper()} for n in ("top", "animal", "pet", "thing", "vehicle", "far")},
    "edges": [
        ["dog", "pet"],
        ["dog", "animal"],
        ["cat", "pet"],
        ["pet", "animal"],
        ["animal", "far"],
        ["far", "top"],
        ["car", "vehicle"],
        ["vehicle", "thing"],
        ["thing", "top"],
    ],
}


def written(folder, content=TOY, name="toy"):
    path = folder / f"{name}_wordnet.json"
    path.write_text(json.dumps(content))
    return path


def test_a_file_is_read_by_path_or_by_name_with_its_classes_in_label_order(tmp_path):
    path = written(tmp_path)
    toy = hierarchy.load(path)
    assert toy == hierarchy.load("toy", data_dir=tmp_path)
    assert toy.class_ids == ("cat", "dog", "car") and toy.class_glosses == ("it purrs", "it barks", "it rolls")
    assert toy.name == "toy" and toy.root == "top" and toy.node_names["pet"] == "PET" and toy.node_names["dog"] == "dog"
    assert repr(toy) == "Hierarchy('toy': 3 classes, 9 nodes, 9 edges)"


def test_the_tree_keeps_each_nodes_first_parent(tmp_path):
    toy = hierarchy.load(written(tmp_path))
    assert set(toy.tree_edges()) == {tuple(edge) for edge in TOY["edges"]} - {("dog", "animal")}


def test_a_contracted_tree_joins_the_edges_of_nodes_with_one_child(tmp_path):
    toy = hierarchy.load(written(tmp_path))
    assert set(toy.tree_edges(contract=True)) == {("cat", "pet"), ("dog", "pet"), ("pet", "top"), ("car", "top")}
    assert set(toy.weighted_edges(weight=0.5, contract=True)) == {
        ("cat", "pet", 0.5),
        ("dog", "pet", 0.5),
        ("pet", "top", 0.5),
        ("car", "top", 0.5),
    }


def test_the_contracted_cifar10_tree_is_the_one_that_the_file_ships(shared_data):
    shipped = json.loads((shared_data / "hierarchy" / "cifar10_wordnet.json").read_text())["tree_edges"]
    cifar = hierarchy.load("cifar10", data_dir=shared_data / "hierarchy")
    assert set(cifar.tree_edges(contract=True)) == {tuple(edge) for edge in shipped}
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    assert list(cifar.class_names) == names


@pytest.mark.parametrize(("name", "classes", "edges"), [("imagenet1k", 1000, 1937), ("imagenet21k", 21841, 24048)])
def test_the_imagenet_hierarchies_have_their_counts_and_become_trees(shared_data, name, classes, edges):
    found = hierarchy.load(name, data_dir=shared_data / "hierarchy")
    assert len(found.class_ids) == classes and len(found.edges) == edges
    assert list(found.class_ids) == sorted(found.class_ids)
    for contract in (False, True):
        tree = found.tree_edges(contract=contract)
        children = [child for child, _ in tree]
        nodes = {node for edge in tree for node in edge}
        assert len(set(children)) == len(children) == len(nodes) - 1 and found.root not in children
        assert set(found.class_ids) <= nodes


@pytest.mark.parametrize("contract", [False, True])
def test_contraction_keeps_the_lowest_common_ancestors_of_classes(tmp_path, contract):
    toy = hierarchy.load(written(tmp_path))
    above = dict(toy.tree_edges(contract=contract))

    def chain(node):
        return [node, *chain(above[node])] if node in above else [node]

    common = {
        (a, b): next(node for node in chain(a) if node in chain(b))
        for a in toy.class_ids
        for b in toy.class_ids
        if a < b
    }
    assert common == {("cat", "dog"): "pet", ("car", "cat"): "top", ("car", "dog"): "top"}


def test_a_name_that_is_not_there_or_lacks_a_folder_is_refused(tmp_path):
    written(tmp_path)
    with pytest.raises(ValueError, match=r"no hierarchy 'tyo' .* Did you mean 'toy'\?"):
        hierarchy.load("tyo", data_dir=tmp_path)
    with pytest.raises(ValueError, match="a name such as 'imagenet1k' needs data_dir"):
        hierarchy.load("toy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edges": TOY["edges"][:-1]}, "class car does not reach the root top; it ends at thing"),
        ({"edges": [*TOY["edges"][:-1], ["thing", "vehicle"]]}, "class car does not reach the root"),
        ({"classes": TOY["classes"] * 2}, "lists a class id twice"),
    ],
)
def test_a_graph_that_is_no_rooted_hierarchy_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        hierarchy.load(written(tmp_path, TOY | changes))


def test_another_json_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no hierarchy: it lacks root, classes, internal_nodes, edges"):
        hierarchy.load(written(tmp_path, {"nodes": np.arange(3).tolist()}))


def test_names_with_prefixes_spell_out_a_tree():
    names = ("a:x", "a:y", "b", "c:d:e", "a:x")
    edges = [("a:x", "a"), ("a:y", "a"), ("b", "top"), ("c:d:e", "c:d"), ("a", "top"), ("c:d", "c"), ("c", "top")]
    assert hierarchy.prefix_edges(names, root="top") == edges
    assert hierarchy.prefix_edges(("a/x",), root="top", separator="/") == [("a/x", "a"), ("a", "top")]
    assert hierarchy.prefix_edges((), root="top") == []
