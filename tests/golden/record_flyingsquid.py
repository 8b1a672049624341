"""Records what FlyingSquid makes of votes, for tests/weaksup/label_model/test_oracles.py.

    python -m tests.golden.record_flyingsquid FOLDER

FOLDER is a checkout of HazyResearch/flyingsquid (recorded from 28a713a). The library is not on the package index and
its dependency pgmpy has lost the class that it imports. All that it needs of pgmpy for functions that are independent
given the class is a star and tables of two variables, which are given here; the triplets and the posterior are its
own code.
"""

import itertools
import sys
import types
from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "weaksup" / "flyingsquid.npz"
BALANCE = (0.8, 0.2)


class Factor:
    """A table over named variables."""

    def __init__(self, variables, cardinality, values):
        self.variables, self.values = list(variables), np.reshape(np.asarray(values, float), cardinality)

    def normalize(self, inplace):
        return Factor(self.variables, self.values.shape, self.values / self.values.sum())

    def reduce(self, states, inplace):
        index = tuple(dict(states).get(variable, slice(None)) for variable in self.variables)
        values = self.values[index]
        return Factor([v for v in self.variables if v not in dict(states)], np.shape(values), values)

    def marginal_distribution(self, variables, inplace):
        gone = tuple(i for i, v in enumerate(self.variables) if v not in variables)
        kept = [v for v in self.variables if v in variables]
        values = self.values.sum(axis=gone)
        return Factor(kept, values.shape, values)


class Star:
    """Functions around one class, and its junction tree, a path over the pairs."""

    def __init__(self):
        self.nodes, self.edges = [], []

    def add_nodes_from(self, nodes):
        self.nodes += nodes

    def add_edges_from(self, edges):
        self.edges += edges

    def to_junction_tree(self):
        tree = Star()
        tree.nodes = [tuple(edge) for edge in self.edges]
        tree.edges = list(itertools.pairwise(tree.nodes))
        return tree


def library(folder: str):
    """Returns FlyingSquid's label model, imported from a checkout."""
    models, factors = types.ModuleType("pgmpy.models"), types.ModuleType("pgmpy.factors.discrete")
    models.MarkovModel = Star
    factors.JointProbabilityDistribution = factors.DiscreteFactor = Factor
    sys.modules |= {"pgmpy": types.ModuleType("pgmpy"), "pgmpy.models": models}
    sys.modules |= {"pgmpy.factors": types.ModuleType("pgmpy.factors"), "pgmpy.factors.discrete": factors}
    sys.path.insert(0, folder)
    from flyingsquid.label_model import LabelModel

    return LabelModel


def votes(n: int, propensity: float, seed: int) -> np.ndarray:
    """Draws votes of 1, -1 and 0 by functions of accuracies from 0.6 to 0.9."""
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(n) < 0.4, 1, -1)
    accuracies = np.linspace(0.6, 0.9, 6)
    given = np.where(rng.random((n, 6)) < accuracies, truth[:, None], -truth[:, None])
    return np.where(rng.random((n, 6)) < propensity, given, 0)


def main() -> None:
    LabelModel = library(sys.argv[1])
    recorded = {}
    for name, propensity in (("all_vote", 1.0), ("abstaining", 0.6)):
        given = votes(400, propensity, seed=0)
        recorded[name] = given.astype(np.int8)
        for balance_name, balance in (("equal", (0.5, 0.5)), ("skewed", BALANCE)):
            model = LabelModel(6)
            model.fit(given, class_balance=np.array(balance))
            recorded[f"{name}_{balance_name}"] = model.predict_proba(given)
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **recorded)


if __name__ == "__main__":
    main()
