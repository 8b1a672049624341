"""Closed forms in numpy for the flat models, and the limits in which the curved ones become them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.curvature.test_links import random_graph
from zsml_jax.curvature import decoder, gcn, link_training, links
from zsml_jax.curvature.gcn import GcnConfig
from zsml_jax.data import graphs
from zsml_jax.evaluate import ranking

RNG = np.random.default_rng(0)
N = 7
ADJACENCY = np.triu(RNG.random((N, N)) < 0.4, 1)
ADJACENCY = ADJACENCY | ADJACENCY.T
X = jnp.asarray(0.3 * RNG.normal(size=(N, 5)), jnp.float32)
A = gcn.row_normalised(ADJACENCY)
FLAT = GcnConfig(("e",), ((5, 4, 3),))
THREE = GcnConfig(("h", "e", "s"), ((5, 4, 2),) * 3)


def with_bias(params):
    """The parameters with biases that are not zero."""
    bias = lambda layer: layer._replace(bias=0.1 * jnp.arange(1.0, len(layer.bias) + 1))
    return params._replace(layers=tuple(tuple(map(bias, factor)) for factor in params.layers))


def test_with_one_flat_factor_the_model_is_the_gcn_of_kipf_and_welling(key):
    params = with_bias(gcn.init(FLAT, key=key))
    (first, second), a, x = params.layers[0], np.asarray(A), np.asarray(X)
    hidden = np.maximum(a @ (x @ first.kernel + first.bias), 0)
    expected = a @ (hidden @ second.kernel + second.bias)
    (found,) = gcn.embed(FLAT, params, [X], A)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    apart = 4 * ((expected[:, None] - expected) ** 2).sum(-1)  # curvature 0 measures twice the usual distance
    np.testing.assert_allclose(gcn.squared_distances(FLAT, params, [found]), apart, atol=1e-5)


def test_kappa_gcn_of_curvature_zero_is_the_euclidean_gcn(key):
    curved = GcnConfig(("k",), FLAT.widths, "gyromidpoint")
    params = with_bias(gcn.init(FLAT, key=key))
    np.testing.assert_allclose(
        gcn.embed(curved, params, [X], A)[0], gcn.embed(FLAT, params, [X], A)[0], rtol=1e-4, atol=1e-6
    )
    for kappa in (-1e-5, 1e-5):
        near = params._replace(curvature=jnp.array([kappa]))
        np.testing.assert_allclose(
            gcn.embed(curved, near, [X], A)[0], gcn.embed(FLAT, params, [X], A)[0], rtol=1e-3, atol=1e-4
        )


def test_graphsage_adds_the_node_itself_to_the_mean_of_its_neighbours(key):
    config = dataclasses.replace(FLAT, aggregation="sage", widths=((5, 3),))
    params = with_bias(gcn.init(config, key=key))
    ((layer,),) = params.layers
    degrees = np.maximum(ADJACENCY.sum(1, keepdims=True), 1)
    expected = (ADJACENCY @ X / degrees) @ layer.kernel + X @ layer.own_kernel + layer.bias
    np.testing.assert_allclose(gcn.embed(config, params, [X], A)[0], expected, rtol=1e-4, atol=1e-5)


def test_the_product_has_one_squared_distance_a_pair_the_sum_over_factors(key):
    params = gcn.init(THREE, key=key)
    points = gcn.embed(THREE, params, [X, X, X], A)
    total = gcn.squared_distances(THREE, params, points)
    each = [
        gcn.squared_distances(GcnConfig((k,), (w,)), params._replace(curvature=jnp.zeros(1)), [p])
        for k, w, p in zip(THREE.kinds, THREE.widths, points, strict=True)
    ]
    assert total.shape == (N, N)
    np.testing.assert_allclose(total, sum(each), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_curvatures_keep_their_sign_or_are_free_and_have_gradients(key):
    config = GcnConfig(("h", "s", "k"), ((5, 2),) * 3)
    params = gcn.init(config, key=key)._replace(curvature=jnp.array([0.5, -0.5, -0.2]))
    np.testing.assert_allclose(gcn.kappas(config, params), [-np.exp(0.5), np.exp(-0.5), -0.2], rtol=1e-6)
    loss = lambda p: gcn.squared_distances(config, p, gcn.embed(config, p, [X] * 3, A)).sum()
    gradient = jax.grad(loss)(params)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))
    assert (gradient.curvature != 0).all()


def test_a_permutation_of_the_nodes_permutes_the_points(key):
    order = RNG.permutation(N)
    for aggregation in ("tangent", "gyromidpoint"):
        config = dataclasses.replace(THREE, aggregation=aggregation)
        params = gcn.init(config, key=key)
        plain = gcn.embed(config, params, [X] * 3, A)
        permuted = gcn.embed(config, params, [X[order]] * 3, A[order][:, order])
        for a, b in zip(plain, permuted, strict=True):
            np.testing.assert_allclose(a[order], b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((("q",), ((3, 2),)), "kinds must be of 'h', 'e', 's' and 'k'"),
        ((("h", "e"), ((3, 2),)), "widths must give each of 2 factors"),
        ((("h",), ((3,),)), "widths must give each of 1 factors"),
        ((("h",), ((3, 2),), "max"), "aggregation must be one of"),
    ],
)
def test_a_model_that_cannot_be_is_refused(arguments, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        GcnConfig(*arguments)


@pytest.mark.slow
def test_models_learn_the_edges_of_two_communities_and_a_batch_trains_as_each_alone(key):
    rng = np.random.default_rng(0)
    side = np.arange(30) % 2
    chance = lambda i, j: 0.6 if side[i] == side[j] else 0.03
    rows = [(f"{i:02}", f"{j:02}") for i in range(30) for j in range(i) if rng.random() < chance(i, j)]
    graph = graphs.from_edges(rows)
    parts = links.split(graph, seed=0, fewest=15)
    x = [rng.normal(size=(len(graph), 4)).astype(np.float32) for _ in range(3)]
    hyper = link_training.grid([0.03, 0.01], [0.0])
    config = GcnConfig(("h", "e", "s"), ((4, 4, 3),) * 3)
    one = link_training.task(parts, x, pad_to=32)
    both = jax.tree.map(lambda a: jnp.stack([a, a]), one)
    fitted = link_training.fit_all(config, both, hyper, key=key, epochs=80)
    logits = np.asarray(fitted.logits[0, 0])
    score = lambda pairs: logits[pairs[:, 0], pairs[:, 1]]
    assert ranking.roc_auc(*map(score, parts.test)) > 0.75
    own = jax.random.fold_in(jax.random.fold_in(key, 1), 1)
    alone = link_training.fit(config, one, jax.tree.map(lambda a: a[1], hyper), key=own, epochs=80)
    np.testing.assert_allclose(fitted.validation_loss[1, 1], alone.validation_loss, rtol=1e-3)


@pytest.mark.slow
def test_a_task_shows_a_model_no_test_edge_and_training_keeps_the_best_epoch(key):
    parts = links.split(random_graph(), random_graph(seed=1), seed=0, fewest=10)
    x = [np.zeros((40, 2), np.float32)]
    seen = link_training.task(parts, x, pad_to=48)
    for pairs in (*parts.test, *parts.novel, *parts.validation):
        assert not seen.positives[pairs[:, 0], pairs[:, 1]].any()
    assert seen.positives.sum() == len(parts.train) and not seen.negatives[:, 40:].any()
    hyper = link_training.Hyperparameters(0.01, 0.0, 0.1)
    fitted = link_training.fit(GcnConfig(("e",), ((2, 2),), bias=False), seen, hyper, key=key, epochs=3)
    # Features of zeros leave all nodes in one point, which the detector sees; only the decoder can learn.
    assert decoder.is_collapsed(fitted.logits) and fitted.validation_loss <= 2.2539


def test_features_and_grids_that_cannot_be_are_refused():
    parts = links.split(random_graph(), seed=0, fewest=10)
    with pytest.raises(ValueError, match="features must be finite, a row for each of 40 nodes"):
        link_training.task(parts, [np.full((40, 2), np.nan)])
    with pytest.raises(ValueError, match="rates must be positive"):
        link_training.grid([0.0], [0.1])
