"""Label models, heuristics and end models."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.contract.case import Case
from zsml_jax import weaksup
from zsml_jax.weaksup import end_model, foundation_votes, goggles, label_model, label_propagation, softmax_regression
from zsml_jax.weaksup.heuristics import logistic, stumps

N, M, K, D = 60, 5, 3, 4
TRUTH = np.arange(N) % K
LABELS = np.where(np.arange(N) < 24, TRUTH, -1)
CENTRES = 1.5 * np.random.default_rng(0).normal(size=(K, D))
WEIGHTS = jnp.asarray(LABELS != -1, jnp.float32)
COLUMNS = np.array([[0, 1], [2, 3]])


def votes(seed):
    """Votes that are right seven times of ten, and abstain once of ten."""
    rng = np.random.default_rng(seed)
    guesses = rng.integers(0, K, (N, M))
    drawn = np.where(rng.random((N, M)) < 0.55, TRUTH[:, None], guesses)
    return jnp.asarray(np.where(rng.random((N, M)) < 0.1, -1, drawn), jnp.int32)


def features(seed):
    return jnp.asarray(CENTRES[TRUTH] + np.random.default_rng(seed).normal(size=(N, D)), jnp.float32)


ALIKE = weaksup.affinity.cosine(features(0), features(0)[:24])[None]


def posteriors(seed):
    return jax.nn.softmax(jnp.asarray(np.random.default_rng(seed).normal(size=(N, K)), jnp.float32))


def labelled_by(model):
    """The posterior of a label model that was fitted on the votes."""
    return lambda x: model.fit(x, K).posterior(x)


NAMES = ("majority_vote", "dawid_skene", "naive_bayes", "metal", "flyingsquid")
CASES = [
    *(Case(name, labelled_by(getattr(label_model, name)), votes) for name in NAMES),
    Case("weighted_vote", lambda x: label_model.weighted_vote.fit(x, K, labels=jnp.asarray(TRUTH)).posterior(x), votes),
    Case("lf_analysis", lambda x: weaksup.analyze(x, K, jnp.asarray(TRUTH)), votes),
    Case("foundation_votes", lambda x: foundation_votes.votes([x], least=0.4), posteriors),
    Case("few_shot", lambda x: softmax_regression.fit_labelled(x, LABELS).posterior(x), features),
    Case("soft_regression", lambda x: softmax_regression.fit_soft(features(9), x).posterior(features(9)), posteriors),
    Case("label_propagation", lambda x: label_propagation.propagate(x, LABELS, gamma=0.5), features),
    Case("stumps", lambda x: stumps.fit(x, jnp.asarray(TRUTH), WEIGHTS, K), features),
    Case("logistic_heuristics", lambda x: logistic.fit(x, jnp.asarray(TRUTH), WEIGHTS, K, COLUMNS), features),
    Case(
        "end_model",
        lambda x: end_model.fit(x, posteriors(3), end_model.Config(steps=20), key=jax.random.key(0)).posterior(x),
        features,
        is_network=True,
    ),
]

SEEDED = {
    "end_model": lambda key: end_model.fit(features(0), posteriors(3), end_model.Config(steps=2), key=key).layers,
    "goggles": lambda key: goggles.fit(
        ALIKE, LABELS, goggles.Config(variant="unclamped", steps=1, restarts=1), key=key
    ),
}
