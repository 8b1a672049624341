"""Methods composed as `make demo` composes them: RoboShot's head, then OTTER's dual, then Loki's decoding."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.zeroshot import loki, otter, roboshot
from zsml_jax.zeroshot.head import ClassHead
from zsml_jax.zeroshot.metric_space import TreeMetric

TREE = TreeMetric([("root", "animal", 1.0), ("animal", "cat", 1.0), ("animal", "dog", 1.0), ("root", "car", 2.0)])
SEEN = ("cat", "dog", "car")
NOISE = 0.5


def problem(seed=0, n=300, d=8):
    """Embeddings ``(n, d)`` with a nuisance direction, a head that leans on it, the direction, and the frequencies."""
    rng = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(rng.normal(size=(d, 4)))
    nuisance, classes = directions[:, 0], directions[:, 1:].T
    labels = rng.choice(3, n, p=[0.1, 0.7, 0.2])
    x = classes[labels] + NOISE * rng.normal(size=(n, d)) + rng.normal(size=(n, 1)) * nuisance
    vectors = classes + np.array([[1.0], [0.0], [-1.0]]) * nuisance
    head = ClassHead(vectors.astype(np.float32), np.array(5.0, np.float32), np.zeros(3, np.float32))
    return x.astype(np.float32), labels, head, nuisance[None].astype(np.float32), np.bincount(labels) / n


def test_an_edited_head_is_the_head_on_edited_embeddings_all_the_way_down():
    x, _, head, harmful, nu = problem()
    edited_head = roboshot.edit_head(head, harmful=harmful)
    edited_x = roboshot.edit_embeddings(x, harmful=harmful, renormalize=False)
    by_head, by_embedding = edited_head.log_probs(x), head.log_probs(edited_x)
    np.testing.assert_allclose(by_head, by_embedding, atol=1e-4)
    first, second = otter.solve(by_head, nu), otter.solve(by_embedding, nu)
    assert np.mean(first.assignment == second.assignment) > 0.99


def test_the_dual_folded_into_the_head_predicts_as_the_output_does():
    x, _, head, harmful, nu = problem()
    edited = roboshot.edit_head(head, harmful=harmful)
    fitted = otter.solve(edited.log_probs(x), nu)
    folded = edited.shifted(fitted.dual.astype(np.float32))
    agreement = np.mean(folded.predict(x) == fitted.assignment)
    assert agreement > 0.99  # but for rows of zero margin, in float32


@pytest.mark.slow
def test_each_step_helps_where_its_premise_holds():
    n = 4000
    x, labels, head, harmful, nu = problem(n=n)
    head = dataclasses.replace(head, logit_scale=np.array(1 / NOISE**2, np.float32))  # Bayes' for equal classes
    edited = roboshot.edit_head(head, harmful=harmful)
    adapted = edited.shifted(otter.solve(edited.log_probs(x), nu, epsilon=1.0).dual)  # and for these
    names = np.array([TREE.classes.index(name) for name in SEEN])
    decoded = loki.decode(jnp.exp(adapted.log_probs(x)), TREE, observed=SEEN)
    accuracy = lambda classifier: np.mean(classifier.predict(x) == labels)
    cost = lambda predicted: loki.expected_cost(np.eye(3)[labels], TREE, predicted, observed=SEEN).mean()
    assert accuracy(edited) > accuracy(head) + 0.05
    assert accuracy(adapted) > accuracy(edited) + 0.005
    assert cost(decoded) < 0.95 * cost(names[adapted.predict(x)])


@pytest.mark.slow
def test_the_whole_composition_is_one_compiled_and_differentiable_function():
    x, _, head, harmful, nu = problem()

    def cost(harmful):
        edited = roboshot.edit_head(head, harmful=harmful)
        dual = otter.solve(edited.log_probs(x), nu, epsilon=0.5).dual
        probs = jnp.exp(edited.shifted(dual).log_probs(x))
        return loki.expected_cost(probs, TREE, observed=SEEN).min(axis=1).mean(), loki.decode(
            probs, TREE, observed=SEEN
        )

    (value, decoded), slope = jax.jit(jax.value_and_grad(cost, has_aux=True))(harmful)
    eager, same = cost(harmful)
    np.testing.assert_allclose(value, eager, rtol=1e-4)
    assert np.mean(decoded == same) > 0.99
    direction = np.random.default_rng(1).normal(size=harmful.shape).astype(np.float32)
    step = 3e-3
    difference = (cost(harmful + step * direction)[0] - cost(harmful - step * direction)[0]) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(slope, direction), difference, rtol=2e-2, atol=1e-3)
    batched, _ = jax.vmap(cost)(jnp.stack([harmful, harmful + 0.1 * direction]))
    np.testing.assert_allclose(batched[0], value, rtol=1e-4)
