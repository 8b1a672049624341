"""The label models beside the libraries that have them, or their formulas in numpy, on the same votes."""

import itertools
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from zsml_jax.weaksup import label_model, synthetic

GOLDEN = Path(__file__).parents[2] / "golden" / "weaksup" / "flyingsquid.npz"
ACCURACIES = np.array([0.85, 0.8, 0.7, 0.65, 0.6])


def draw(seed, n=400, k=2, **options):
    problem = synthetic.independent_votes(jax.random.key(seed), n, ACCURACIES, k=k, **{"propensities": 0.8, **options})
    return np.asarray(problem.votes), np.asarray(problem.labels)


def as_frame(votes):
    """Votes as crowd-kit takes them; only examples with a vote."""
    pd = pytest.importorskip("pandas", reason="crowd-kit takes pandas frames")
    rows, columns = np.nonzero(votes != -1)
    return pd.DataFrame({"task": rows, "worker": columns, "label": votes[rows, columns]})


def crowd_kit(name, votes, **options):
    crowdkit = pytest.importorskip("crowdkit.aggregation", reason="needs the oracle extra")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = getattr(crowdkit, name)(**options).fit_predict_proba(as_frame(votes))
    return table.reindex(range(len(votes))).sort_index(axis=1).to_numpy()


def snorkel_posterior(votes, k, *, seed, **options):
    """Snorkel's posterior, and the number between 0 and 1 that it draws for its starting point."""
    model = pytest.importorskip("snorkel.labeling.model", reason="needs the oracle extra")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = model.LabelModel(cardinality=k, verbose=False)
        fitted.fit(votes, seed=seed, progress_bar=False, **options)
        return fitted.predict_proba(votes), np.random.RandomState(seed).random_sample()


def released_triplets(signed, balance):
    """FlyingSquid's posterior, of its binary class as released, for votes 1, -1 and 0; it has the balance twice."""
    n, m = signed.shape
    moments = signed.T.astype(float) @ signed / n
    joint = (2 - m) * np.log(balance)
    for i in range(m):
        pairs = list(itertools.combinations([j for j in range(m) if j != i], 2))
        means = [moments[j, l] and np.sqrt(abs(moments[i, j] * moments[i, l] / moments[j, l])) for j, l in pairs]
        positive, silent = (signed[:, i] == 1).mean(), (signed[:, i] == 0).mean()
        # Of votes 1, 0, -1 with class 1, then -1: all, vote 1, vote 0, class 1, vote = class, vote 0 with class 1.
        sums = [[1, 1, 1, 1, 1, 1], [1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 1]]
        known = [1, positive, silent, balance[1], (1 + np.mean(means) - silent) / 2, silent * balance[1]]
        table = np.abs(np.linalg.solve([*sums, [0, 1, 0, 0, 0, 0]], known)).reshape(2, 3)
        joint = joint + np.log(table[::-1, 1 - signed[:, i]] / table.sum()).T
    return np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))


def released_one_against_the_rest(votes, balance):
    columns = []
    for label, share in enumerate(balance):
        signed = np.select([votes == -1, votes == label], [0, 1], -1)
        once = released_triplets(signed, np.array([1 - share, share])) / [1 - share, share]
        columns.append(once[:, 1] / once.sum(axis=1))
    return np.stack(columns, axis=1) / np.sum(columns, axis=0)[:, None]


@pytest.mark.oracle
@pytest.mark.parametrize("k", [2, 4])
def test_majority_vote_is_crowd_kits(k):
    votes, _ = draw(0, k=k)
    voted = (votes != -1).any(axis=1)
    ours = label_model.majority_vote.fit(votes, k).posterior(votes)
    np.testing.assert_allclose(ours[voted], crowd_kit("MajorityVote", votes)[voted], atol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "theirs"), [("dawid_skene", "DawidSkene"), ("naive_bayes", "OneCoinDawidSkene")])
@pytest.mark.parametrize("k", [2, 3])
def test_em_ends_where_crowd_kits_ends(name, theirs, k):
    votes, _ = draw(1, n=300, k=k)
    voted = (votes != -1).any(axis=1)
    # Its bound on the evidence may fall in an early step, where any tolerance above would stop it.
    expected = crowd_kit(theirs, votes, n_iter=200, tol=-np.inf)
    fitted = getattr(label_model, name).fit(votes, k, tolerance=-1.0, max_iterations=200)
    np.testing.assert_allclose(fitted.posterior(votes)[voted], expected[voted], atol=1e-4)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("skewed", [False, True])
def test_metal_takes_snorkels_steps(k, skewed):
    votes, _ = draw(2, k=k)
    balance = np.arange(1, k + 1) / np.arange(1, k + 1).sum() if skewed else np.full(k, 1 / k)
    expected, scale = snorkel_posterior(votes, k, seed=3, n_epochs=100, class_balance=balance.tolist())
    fitted = label_model.metal.fit(votes, k, steps=100, initial_scale=scale, class_balance=balance)
    np.testing.assert_allclose(fitted.posterior(votes), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["all_vote", "abstaining"])
def test_triplets_are_those_of_the_released_flyingsquid(name):
    recorded = np.load(GOLDEN)
    votes = np.select([recorded[name] == 1, recorded[name] == -1], [1, 0], -1)
    fitted = label_model.flyingsquid.fit(votes, 2)
    np.testing.assert_allclose(fitted.posterior(votes), recorded[f"{name}_equal"], atol=1e-5)


@pytest.mark.parametrize("name", ["all_vote", "abstaining"])
def test_the_released_flyingsquid_counts_the_class_balance_twice(name):
    recorded = np.load(GOLDEN)
    votes = np.select([recorded[name] == 1, recorded[name] == -1], [1, 0], -1)
    balance = np.array([0.8, 0.2])
    posterior = label_model.flyingsquid.fit(votes, 2, class_balance=balance).posterior(votes)
    twice = posterior * balance
    np.testing.assert_allclose(twice / twice.sum(axis=1, keepdims=True), recorded[f"{name}_skewed"], atol=1e-5)


@pytest.mark.parametrize("name", ["all_vote", "abstaining"])
@pytest.mark.parametrize(("balance_name", "balance"), [("equal", [0.5, 0.5]), ("skewed", [0.8, 0.2])])
def test_the_formula_of_the_released_flyingsquid_gives_what_it_gave(name, balance_name, balance):
    recorded = np.load(GOLDEN)
    posterior = released_triplets(recorded[name], np.array(balance))
    np.testing.assert_allclose(posterior, recorded[f"{name}_{balance_name}"], atol=1e-9)


@pytest.mark.parametrize("balance", [[1 / 3, 1 / 3, 1 / 3], [0.5, 0.3, 0.2]])
def test_one_against_the_rest_is_the_released_binary_method_for_each_class(balance):
    votes, _ = draw(4, n=500, k=3, class_balance=np.array(balance))
    posterior = label_model.flyingsquid.fit(votes, 3, class_balance=np.array(balance)).posterior(votes)
    np.testing.assert_allclose(posterior, released_one_against_the_rest(votes, balance), atol=1e-5)


def test_functions_that_agree_as_often_as_they_differ_decide_no_triplet():
    votes, _ = draw(15, n=200, propensities=0.7)
    signed = np.select([votes == 1, votes == 0], [1, -1], 0)
    assert (signed.T @ signed == 0).any()
    posterior = label_model.flyingsquid.fit(votes, 2).posterior(votes)
    np.testing.assert_allclose(posterior, released_triplets(signed, np.full(2, 0.5)), atol=1e-5)


@pytest.mark.parametrize("k", [2, 3])
def test_a_weighted_vote_is_the_share_of_a_class_in_the_log_odds_of_accuracies(k):
    votes, labels = (np.array(x) for x in draw(5, k=k))
    votes[:, 4] = (labels + 1) % k  # never right
    votes[:20] = -1
    accuracy = ((votes == labels[:, None]).sum(axis=0) + 1) / ((votes != -1).sum(axis=0) + k)
    weights = np.maximum(np.log((k - 1) * accuracy / (1 - accuracy)), 0)
    scores = np.array([[weights[row == label].sum() for label in range(k)] for row in votes])
    scores[scores.sum(axis=1) == 0] = 1
    fitted = label_model.weighted_vote.fit(votes, k, labels=labels)
    np.testing.assert_allclose(fitted.posterior(votes), scores / scores.sum(axis=1, keepdims=True), atol=1e-6)
    expected = np.where((votes != -1).any(axis=1), scores.argmax(axis=1), -1)
    np.testing.assert_array_equal(fitted.predict(votes), expected)


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 3])
def test_accuracy_is_not_below_that_of_the_libraries_over_100_problems(k):
    problems = [draw(seed, n=200, k=k, propensities=0.7) for seed in range(100)]
    rates = {name: [] for name in ("majority", "ds", "one_coin", "metal", "flyingsquid")}
    mean = lambda posterior, labels, voted: (posterior.argmax(axis=1) == labels)[voted].mean()
    for seed, (votes, labels) in enumerate(problems):
        voted = (votes != -1).any(axis=1)
        pairs = {
            "majority": (label_model.majority_vote.fit(votes, k), crowd_kit("MajorityVote", votes)),
            "ds": (label_model.dawid_skene.fit(votes, k), crowd_kit("DawidSkene", votes)),
            "one_coin": (label_model.naive_bayes.fit(votes, k), crowd_kit("OneCoinDawidSkene", votes)),
            "metal": (label_model.metal.fit(votes, k), snorkel_posterior(votes, k, seed=seed)[0]),
            "flyingsquid": (label_model.flyingsquid.fit(votes, k), released_one_against_the_rest(votes, [1 / k] * k)),
        }
        for name, (fitted, theirs) in pairs.items():
            ours = np.asarray(fitted.posterior(votes))
            rates[name].append((mean(ours, labels, voted), mean(np.nan_to_num(theirs), labels, voted)))
    for name, pairs in rates.items():
        gain = np.subtract(*np.transpose(pairs))
        assert gain.mean() >= -1e-3, (name, gain.mean())
