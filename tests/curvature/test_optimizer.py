"""The oracle of the steps is geoopt's RiemannianSGD and RiemannianAdam on the same points and gradients."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zsml_jax.curvature import ambient, manifold, optimizer
from zsml_jax.curvature.manifold import Points, Product
from zsml_jax.curvature.spaces import Ambient, Euclidean, Stereographic


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize(
    ("rule", "name"),
    [
        *(("sgd", name) for name in ("Lorentz", "Sphere", "PoincareBall", "SphereProjection")),
        # Not the sphere: geoopt transports there by projection, which shortens what is transported.
        *((rule, name) for rule in ("momentum", "adam") for name in ("Lorentz", "PoincareBall", "Euclidean")),
    ],
)
def test_steps_are_those_of_geoopt(rule, name, x64):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch", reason="needs the oracle extra")
        geoopt = pytest.importorskip("geoopt", reason="needs the oracle extra")
    theirs = name if name in ("Lorentz", "Euclidean") else f"{name}Exact"  # exponentials, not retractions
    space = {"Lorentz": Ambient(-1.0), "Sphere": Ambient(1.0), "Euclidean": Euclidean()}.get(
        name, Stereographic(-1.0 if name == "PoincareBall" else 1.0)
    )
    rng = np.random.default_rng(0)
    x = jnp.asarray(0.2 * rng.normal(size=(4, 3)))
    if isinstance(space, Ambient):
        x = ambient.lift(x[:, 1:], jnp.full(4, space.sign))
    target = jnp.asarray(rng.normal(size=(4, 3)))
    point = geoopt.ManifoldParameter(torch.tensor(np.asarray(x)), manifold=getattr(geoopt, theirs)())
    if rule == "adam":
        peer = geoopt.optim.RiemannianAdam([point], lr=0.05)
        ours = optimizer.riemannian_adam(0.05, space)
    else:
        momentum = 0.9 if rule == "momentum" else 0.0
        peer = geoopt.optim.RiemannianSGD([point], lr=0.05, momentum=momentum)
        ours = optimizer.riemannian_sgd(0.05, space, momentum=momentum)
    state = ours.init(x)
    for step in range(4):
        gradient = jax.grad(lambda p, t=step: jnp.sum((p - target) ** 2 * (1 + t)))(x)
        if step == 0 and rule == "momentum":
            # geoopt starts its buffer at the first Euclidean gradient and adds the Riemannian one; ours starts at zero.
            peer.zero_grad()
            for group in peer.param_groups:
                group["step"] = 0
            peer.state[point]["momentum_buffer"] = torch.zeros(4, 3, dtype=torch.float64)
        point.grad = torch.tensor(np.asarray(gradient))
        peer.step()
        updates, state = ours.update(gradient, state, x)
        x = optax.apply_updates(x, updates)
        np.testing.assert_allclose(x, point.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_curvatures_and_points_learn_together_each_at_its_own_rate():
    product = Product((("h", 1, 2), ("s", 1, 2), ("k", 1, 2)))
    params = {
        "curvature": manifold.init(product),
        "points": manifold.random_points(product, manifold.init(product), (6,), key=jax.random.key(0), scale=0.3),
    }
    spaces = lambda p: {"curvature": Euclidean(), "points": Points(manifold.spaces(product, p["curvature"]), product)}
    rule = optimizer.riemannian_adam({"curvature": 0.0, "points": 0.05}, spaces, clip_step=1.0)
    wanted = jnp.asarray(1 - np.eye(6), jnp.float32)

    def loss(p):
        found = manifold.distance(product, p["curvature"], p["points"][:, None], p["points"][None])
        return jnp.sum((found - wanted) ** 2)

    @jax.jit
    def step(p, state):
        updates, state = rule.update(jax.grad(loss)(p), state, p)
        return optax.apply_updates(p, updates), state

    before, p, state = loss(params), params, rule.init(params)
    for _ in range(60):
        p, state = step(p, state)
    assert loss(p) < 0.5 * before
    jax.tree.map(np.testing.assert_array_equal, p["curvature"], params["curvature"])
    again = manifold.project(product, p["curvature"], p["points"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), again, p["points"])


def test_a_step_is_no_longer_than_its_limit():
    x = ambient.lift(jnp.zeros((3, 2)), jnp.full(3, -1.0))
    gradient = jnp.array([[0.0, 100.0, 0.0], [0.0, 0.0, 0.01], [0.0, 0.0, 0.0]])
    rule = optimizer.riemannian_sgd(1.0, Ambient(-1.0), clip_step=0.5)
    updates, _ = rule.update(gradient, rule.init(x), x)
    moved = ambient.distance(x, x + updates, -1.0)
    np.testing.assert_allclose(moved, [0.5, 0.01, 0.0], rtol=1e-4, atol=1e-6)


def test_an_update_without_the_point_is_refused():
    rule = optimizer.riemannian_sgd(0.1, Euclidean())
    with pytest.raises(ValueError, match="params must be given to update"):
        rule.update(jnp.ones(2), rule.init(jnp.ones(2)))
