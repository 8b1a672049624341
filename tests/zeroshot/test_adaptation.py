"""Oracles: the closed form where the bound is not active, von Neumann's trace bound, and RoboShot as a limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zsml_jax.zeroshot import adaptation, roboshot
from zsml_jax.zeroshot.head import ClassHead

D = 12


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    spread = np.linspace(0.3, 1.5, D)
    x = (rng.normal(size=(200, D)) * spread + 0.3).astype(np.float32)
    return x, rng.normal(size=(3, D)).astype(np.float32), rng.normal(size=(2, D)).astype(np.float32)


def unit(v):
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def mean_outer(v):
    return unit(v).T @ unit(v) / len(v)


def full_map(output):
    return np.eye(D) + output.basis.T @ (output.transform - np.eye(len(output.transform))) @ output.basis


def test_the_convex_case_attains_its_closed_form(problem):
    x, harmful, helpful = problem
    for beta, proximity in ((0.0, 0.05), (0.2, 0.3)):
        m = mean_outer(harmful) - beta * mean_outer(helpful)
        expected = proximity * np.linalg.inv(m + proximity * np.eye(D))
        assert np.linalg.norm(expected, 2) < 3.5
        output = adaptation.fit(
            x, harmful=harmful, helpful=helpful, helpful_weight=beta, proximity=proximity, max_norm=3.5, n_steps=2000
        )
        assert output.converged
        np.testing.assert_allclose(full_map(output), expected, atol=2e-3)


def test_little_proximity_leads_to_the_removal_of_the_harmful_span(problem):
    x, harmful, _ = problem
    output = adaptation.fit(x, harmful=harmful, proximity=1e-5, n_steps=3000)
    ours, limit = output.edit_embeddings(x), roboshot.edit_embeddings(x, harmful=harmful)
    np.testing.assert_allclose(ours, limit, atol=5e-3)
    assert adaptation.alignment(ours, harmful) < 1e-3 * adaptation.alignment(x, harmful)


def test_roboshot_is_the_limit_on_isotropic_data_with_orthogonal_insights():
    insights = np.linalg.qr(np.random.default_rng(0).normal(size=(D, 5)))[0].T.astype(np.float32)
    x = np.eye(D, dtype=np.float32)
    output = adaptation.fit(x, harmful=insights[:3], helpful=insights[3:], proximity=1e-3, centered=False, n_steps=2000)
    limit = roboshot.edit_embeddings(x, harmful=insights[:3], helpful=insights[3:], renormalize=False)
    np.testing.assert_allclose(output.edit_embeddings(x, renormalize=False), limit, atol=5e-3)


def test_orthogonal_maps_attain_von_neumanns_trace_bound(problem):
    x, harmful, helpful = problem
    output = adaptation.fit(x, harmful=harmful, helpful=helpful, proximity=0.0, constraint="orthogonal", n_steps=4000)
    a = np.asarray(output.transform)
    np.testing.assert_allclose(a @ a.T, np.eye(5), atol=1e-5)
    within = (x - x.mean(axis=0)) @ output.basis.T
    target = output.basis @ (mean_outer(harmful) - mean_outer(helpful)) @ output.basis.T
    moments = np.linalg.eigvalsh(within.T @ within / len(x))[::-1]
    np.testing.assert_allclose(output.objective[-1], moments @ np.linalg.eigvalsh(target), rtol=1e-4)
    assert output.converged


@pytest.mark.slow
def test_the_papers_linear_loss_falls_without_bound_while_ours_converges(problem):
    x, harmful, helpful = problem
    linear = lambda p: jnp.mean(x @ p.T @ unit(harmful).T) - jnp.mean(x @ p.T @ unit(helpful).T)
    losses, p = [], jnp.eye(D)
    for _ in range(400):
        p = p - 0.5 * jax.grad(linear)(p)
        losses.append(float(linear(p)))
    # Each step lowers the loss by the same amount: there is no minimum to converge to.
    np.testing.assert_allclose(np.diff(losses), losses[1] - losses[0], rtol=2e-2)
    assert losses[-1] < 30 * losses[10] < 0
    short, long = (adaptation.fit(x, harmful=harmful, helpful=helpful, n_steps=n) for n in (500, 3000))
    assert long.converged
    np.testing.assert_allclose(short.objective[-1], long.objective[-1], rtol=1e-2)
    eigenvalues = np.linalg.eigvalsh(long.transform)
    np.testing.assert_allclose(long.transform, long.transform.T, atol=1e-6)
    assert eigenvalues.min() > -1e-5 and eigenvalues.max() < 2 + 1e-5


@pytest.mark.parametrize("constraint", ["symmetric", "orthogonal"])
def test_the_objective_never_rises_and_alignments_move_as_asked(problem, constraint):
    x, harmful, helpful = problem
    output = adaptation.fit(x, harmful=harmful, helpful=helpful, constraint=constraint)
    course = np.asarray(output.objective)
    assert (np.diff(course) <= 1e-5 * np.abs(course).max()).all()
    x = x - x.mean(axis=0)
    edited = output.edit_embeddings(x, renormalize=False)
    gain = lambda y: adaptation.alignment(y, harmful) - adaptation.alignment(y, helpful)
    assert gain(edited) < gain(x)
    change = 0.01 * np.mean(np.sum((np.asarray(edited) - x) ** 2, axis=1))
    np.testing.assert_allclose(course[-1], gain(edited) + change, rtol=1e-4)


def test_the_map_folds_into_a_head(problem):
    x, harmful, helpful = problem
    rng = np.random.default_rng(1)
    head = ClassHead(
        vectors=jnp.asarray(rng.normal(size=(4, D)), jnp.float32), logit_scale=jnp.float32(10.0), bias=jnp.arange(4.0)
    )
    output = adaptation.fit(x, harmful=harmful, helpful=helpful, n_steps=50)
    expected = head.logits(output.edit_embeddings(x, renormalize=False))
    np.testing.assert_allclose(output.edit_head(head).logits(x), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shared", [0.0, 2.0])
def test_what_all_embeddings_share_is_not_leaned_into_a_helpful_direction(shared):
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=400)
    eye = np.eye(D, dtype=np.float32)
    x = 0.1 * rng.normal(size=(400, D)).astype(np.float32) + shared * eye[1]
    x[:, 0] += 0.3 * (2 * labels - 1)
    head = ClassHead(jnp.asarray([-eye[0], eye[0]]), jnp.float32(1.0), jnp.zeros(2))

    def accuracy(**options):
        fitted = adaptation.fit(x, helpful=eye[:1], harmful=eye[1:2] + eye[2:3], **options)
        return np.mean(fitted.edit_head(head).predict(x) == labels)

    assert accuracy() > 0.98
    assert (accuracy(centered=False) > 0.98) == (shared == 0)


def test_a_study_over_hyperparameters_maps_as_a_loop_would(problem):
    x, harmful, helpful = problem
    fit = lambda proximity, norm: adaptation.fit(
        x, harmful=harmful, helpful=helpful, proximity=proximity, max_norm=norm, n_steps=50
    )
    proximities, norms = np.array([0.01, 0.1, 1.0], np.float32), np.array([1.0, 2.0, 3.0], np.float32)
    mapped = jax.vmap(fit)(proximities, norms)
    for i in range(3):
        np.testing.assert_allclose(mapped.transform[i], fit(proximities[i], norms[i]).transform, atol=1e-4)


def test_too_few_steps_are_reported(problem):
    x, harmful, helpful = problem
    assert not adaptation.fit(x, harmful=harmful, helpful=helpful, n_steps=2).converged


def test_bad_input_is_refused_by_name(unchecked_types, problem):
    x, harmful, _ = problem
    with pytest.raises(ValueError, match="harmful or helpful must be given"):
        adaptation.fit(x)
    with pytest.raises(ValueError, match="x must be finite"):
        adaptation.fit(x * np.nan, harmful=harmful)
    with pytest.raises(ValueError, match=r"x must have shape \(n, d\) with n >= 1"):
        adaptation.fit(x[:0], harmful=harmful)
    with pytest.raises(ValueError, match="constraint must be"):
        adaptation.fit(x, harmful=harmful, constraint="norm")
    with pytest.raises(ValueError, match="max_norm must be finite and at least 1, got inf"):
        adaptation.fit(x, harmful=harmful, max_norm=np.inf)
    with pytest.raises(ValueError, match="proximity must be finite and at least 0, got -1"):
        adaptation.fit(x, harmful=harmful, proximity=-1)
    with pytest.raises(ValueError, match="n_steps must be at least 1, got 0"):
        adaptation.fit(x, harmful=harmful, n_steps=0)
