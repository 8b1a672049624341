"""Curved spaces, distortion, graph convolutions on products."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.contract.case import Case, whole
from zsml_jax.curvature import ambient, decoder, distortion, gcn, manifold, slots, stereographic
from zsml_jax.curvature.manifold import Product

N, D = 8, 6
KEY = jax.random.key(5)
PRODUCT = Product((("h", 1, 2), ("e", 1, 2), ("k", 1, 2)))
PARAMS = manifold.init(PRODUCT, kappa=-0.3)
OTHERS = jnp.asarray(0.3 * np.random.default_rng(50).normal(size=(N, D)), jnp.float32)
LINKS = np.abs(np.subtract.outer(np.arange(N), np.arange(N))) == 1
STEPS = jnp.asarray(np.abs(np.subtract.outer(np.arange(N), np.arange(N))) + np.eye(N), jnp.float32)
PAIRS = ~jnp.eye(N, dtype=bool)
PROPAGATE = gcn.row_normalised(LINKS)
MODEL = gcn.GcnConfig(("h", "k", "s"), ((2, 4, 3),) * 3)
# One layer has no ReLU, whose kinks differences would meet.
KAPPA = gcn.GcnConfig(("k",), ((D, 3),), "gyromidpoint")
SAGE = gcn.GcnConfig(("e",), ((D, 4, 3),), "sage")


def tangents(seed):
    return jnp.asarray(0.3 * np.random.default_rng(seed).normal(size=(N, D)), jnp.float32)


def points(x):
    return manifold.exp0(PRODUCT, PARAMS, [x[:, None, i : i + 2] for i in (0, 2, 4)])


def logarithms(x):
    return manifold.log(PRODUCT, PARAMS, points(x), points(OTHERS))


def transported(x):
    return manifold.transport(PRODUCT, PARAMS, points(x), points(OTHERS), logarithms(x))


def distances_in_space(sign):
    return lambda x: ambient.distance(ambient.lift(x, sign), ambient.lift(OTHERS, sign), sign)


def distances(x):
    return manifold.distance(PRODUCT, PARAMS, points(x)[:, None], points(x)[None])


def log_odds(config, split):
    def call(x):
        params = gcn.init(config, key=KEY)
        parts = [x[:, i : i + 2] for i in (0, 2, 4)] if split else [x]
        embedded = gcn.embed(config, params, parts, PROPAGATE)
        return decoder.logits(params.decoder, gcn.squared_distances(config, params, embedded))

    return call


def stacked(x):
    """The same factors as slots of one array."""
    spec = jax.tree.map(lambda a: a[0], slots.stack([Product((("h", 1, 2), ("e", 1, 2), ("s", 1, 2)))]))
    parts = jnp.stack([x[:, i : i + 2] for i in (0, 2, 4)])
    place = slots.Place(ambient.lift(parts, spec.sign[:, None]), jnp.array([0.1, 0.0, -0.2]))
    return jnp.where(PAIRS, slots.distances(spec, place), 0)


def stacked_gradient(x):
    return jax.grad(lambda x: jnp.sum(jnp.where(PAIRS, (stacked(x) / STEPS - 1) ** 2, 0)))(x)


def measures(x):
    found = distances(x)
    return (
        distortion.average_distortion(found, STEPS, PAIRS),
        distortion.worst_case_distortion(found, STEPS, PAIRS),
        distortion.mean_average_precision(found, jnp.asarray(LINKS), PAIRS),
    )


def losses(x):
    return jnp.where(PAIRS, distortion.pair_losses(distances(x), STEPS, "squared_relative"), 0)


CASES = [
    Case("exp0_and_distance", distances, tangents, whole),
    Case("logarithms", logarithms, tangents, lambda output: output.parts),
    Case("transport", transported, tangents, lambda output: output.parts),
    Case("hyperboloid", distances_in_space(-1.0), tangents, whole),
    Case("sphere", distances_in_space(1.0), tangents, whole),
    Case("mobius_addition", lambda x: stereographic.add(x, OTHERS, -0.7), tangents, whole),
    Case("gyromidpoint", lambda x: stereographic.gyromidpoint(x, jnp.arange(1.0, N + 1), 0.4), tangents, whole),
    Case("free_curvature", lambda x: stereographic.distance(x, OTHERS, jnp.mean(x)), tangents, whole),
    Case("stacked_signatures", stacked, tangents, whole),
    Case("stacked_gradient", stacked_gradient, tangents),
    Case("embedding_losses", losses, tangents, whole),
    Case("distortion_measures", measures, tangents),
    Case("product_gcn", log_odds(MODEL, True), tangents, whole),
    Case("kappa_gcn", log_odds(KAPPA, False), tangents, whole),
    Case("graph_sage", log_odds(SAGE, False), tangents),
]

SEEDED = {
    "random_points": lambda key: manifold.random_points(PRODUCT, PARAMS, (3,), key=key),
    "gcn": lambda key: gcn.init(MODEL, key=key).layers,
}
