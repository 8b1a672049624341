"""Snuba against the released implementation, and label models against Snorkel and FlyingSquid, in one process.

    python -m benchmarks.weaksup --released DIR                     # 60,000 x 784 and 1,000,000 x 100, tens of minutes
    python -m benchmarks.weaksup --only labels --flyingsquid DIR    # the label models alone
    python -m benchmarks.weaksup --rows 5000 --columns 64 --votes 20000x20 --released DIR --flyingsquid DIR   # small

``--released`` is a checkout of SprocketLab/AutoWS-Bench-101, whose ``fwrench/lf_selectors/snuba`` is run as it is, with
stumps and logistic regressions; ``--flyingsquid`` one of HazyResearch/flyingsquid. Both Snubas get the same 100 labels
and run the same number of rounds; the quality of what they keep, the mean accuracy and coverage of the functions on
all rows, is printed beside the times. FlyingSquid's posterior walks over rows in Python, and is timed on fewer rows.
"""

import argparse
import functools
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from benchmarks import measure
from tests.golden import record_flyingsquid
from zsml_jax.weaksup import label_model, snuba, synthetic

PEER_ROWS = 20_000  # of FlyingSquid's posterior


def features(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Images without structure: two classes that differ a little in each of a tenth of d columns."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, n)
    shift = np.where(np.arange(d) % 10 == 0, 0.12, 0.0)
    x = rng.random((n, d), np.float32) + (truth[:, None] * 2 - 1) * shift.astype(np.float32)
    return x.astype(np.float32), truth


def released_snuba(folder: Path) -> type:
    """Imports the released generator from its files alone, without the packages around it."""
    package = types.ModuleType("released_snuba")
    package.__path__ = [str(folder / "fwrench" / "lf_selectors" / "snuba")]
    sys.modules["released_snuba"] = package
    from released_snuba.heuristic_generator import HeuristicGenerator

    return HeuristicGenerator


def score(truth: np.ndarray, votes: np.ndarray, defaultmetric: Callable, abstain_symbol: int) -> float:
    """The released code's scoring function at its defaults: F1 with abstaining as a label of its own."""
    return defaultmetric(truth, votes)


def run_released(generator: type, x: np.ndarray, truth: np.ndarray, labelled: np.ndarray, rounds: int) -> np.ndarray:
    """Runs the released loop, and returns the votes -1, 0 and 1 of what it keeps."""
    found = generator(x, x[labelled], 2 * truth[labelled] - 1, None, b=0.5)
    found.evaluate = lambda: (0, 0, 0, 0)
    subset = None
    for i in range(rounds):
        found.run_synthesizer(1, -1, subset, keep=3 if i == 0 else 1, model=["dt", "lr"], scoring_fn=score)
        found.run_verifier()
        found.find_feedback()
        subset = found.feedback_idx
        if subset == []:
            break
    return found.L_train


def compare_snuba(folder: Path, n: int, d: int, rounds: int, repeats: int) -> None:
    x, truth = features(n, d)
    labelled = np.arange(100)
    labels = np.where(np.arange(n) < 100, truth, -1)
    config, kept = snuba.Config(rounds=rounds), {}

    def ours() -> jax.Array:
        kept["ours"] = snuba.fit(x, labels, config, key=jax.random.key(0)).fitted_votes
        return kept["ours"]

    def peer() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            signed = run_released(generator, x, truth, labelled, rounds)
        kept["released"] = np.select([signed == 1, signed == -1], [1, 0], -1)

    generator = released_snuba(folder)
    measure.compare(f"Snuba, {n:,} x {d}, {rounds} rounds", ours, peer, peer_name="released", repeats=repeats)
    for name, votes in kept.items():
        votes = np.asarray(votes)
        voted = votes != -1
        right = (votes == truth[:, None])[voted].mean()
        print(f"    {name}: {votes.shape[1]} functions, mean accuracy {right:.3f}, mean coverage {voted.mean():.3f}")


def compare_label_models(n: int, m: int, flyingsquid: Path | None, repeats: int) -> None:
    from snorkel.labeling.model import LabelModel

    accuracies = np.linspace(0.55, 0.85, m)
    problem = synthetic.independent_votes(jax.random.key(0), min(n, 50_000), accuracies, propensities=0.3)
    times = -(-n // len(problem.votes))
    votes = np.tile(np.asarray(problem.votes, np.int8), (times, 1))[:n]
    labels = np.tile(np.asarray(problem.labels), times)[:n]
    posteriors: dict[str, np.ndarray] = {}

    def snorkel() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = LabelModel(cardinality=2, verbose=False)
            model.fit(votes, n_epochs=100, seed=0, progress_bar=False)
            posteriors["Snorkel"] = model.predict_proba(votes)

    def metal() -> jax.Array:
        posterior = label_model.metal.fit(votes, 2, steps=100).posterior(votes)
        posteriors["ours, metal"] = np.asarray(posterior)
        return posterior

    measure.compare(f"moment matching, {n:,} x {m}", metal, snorkel, peer_name="Snorkel", repeats=repeats)
    if flyingsquid is not None:
        peer_model = record_flyingsquid.library(str(flyingsquid))
        signed = np.select([votes == 1, votes == 0], [1, -1], 0)
        rows = min(n, PEER_ROWS)

        def squid_fit() -> None:
            model = peer_model(m)
            model.fit(signed)
            posteriors["model"] = model  # pyrefly: ignore

        fit = functools.partial(label_model.flyingsquid.fit, votes, 2)
        measure.compare(f"triplets, fit, {n:,} x {m}", fit, squid_fit, peer_name="FlyingSquid", repeats=repeats)
        model = posteriors.pop("model")
        ours = label_model.flyingsquid.fit(votes, 2)
        measure.compare(
            f"triplets, posterior, {rows:,} x {m}",
            lambda: ours.posterior(votes[:rows]),
            lambda: model.predict_proba(signed[:rows]),  # pyrefly: ignore
            peer_name="FlyingSquid",
            repeats=repeats,
        )
        posteriors["ours, triplets"] = np.asarray(ours.posterior(votes))
    for name, posterior in posteriors.items():
        print(f"    {name}: accuracy {(posterior.argmax(axis=1) == labels).mean():.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["snuba", "labels"])
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--columns", type=int, default=784)
    parser.add_argument("--rounds", type=int, default=23)
    parser.add_argument("--votes", default="1000000x100")
    parser.add_argument("--released", type=Path, help="a checkout of SprocketLab/AutoWS-Bench-101")
    parser.add_argument("--flyingsquid", type=Path, help="a checkout of HazyResearch/flyingsquid")
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    print(measure.machine("snorkel", "scikit-learn"))
    if args.only != "labels":
        if args.released is None:
            parser.error("Snuba is compared with the released code: give --released, or --only labels")
        compare_snuba(args.released, args.rows, args.columns, args.rounds, args.repeats)
    if args.only != "snuba":
        n, m = (int(x) for x in args.votes.split("x"))
        compare_label_models(n, m, args.flyingsquid, args.repeats)


if __name__ == "__main__":
    main()
