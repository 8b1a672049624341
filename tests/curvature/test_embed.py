"""Graphs whose best space is known: trees go low in H, cycles in S, and grids gain nothing from H."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.curvature import shapes
from zsml_jax.curvature import ambient, embed, manifold, problem, slots
from zsml_jax.curvature.curved_trig import safe_sqrt
from zsml_jax.curvature.embed import Config
from zsml_jax.curvature.manifold import Product
from zsml_jax.data import graphs
from zsml_jax.train import checkpoint

KEY = jax.random.key(0)
TINY = Config(steps=4, batch=4)
MIXED = Product((("h", 2, 3), ("e", 1, 2), ("s", 1, 4)))
PURE = [Product(((kind, 1, 5),)) for kind in "hes"]


@pytest.fixture(scope="module")
def table():
    """Trees, cycles and grids under the three pure signatures."""
    shaped = [shapes.tree(4), shapes.cycle(20), shapes.grid(5)]
    found = embed.fit_all(shaped, PURE, Config(steps=600, batch=9), key=KEY)
    return {g.name: dict(zip("hes", row, strict=True)) for g, row in zip(shaped, found, strict=True)}


@pytest.mark.slow
def test_trees_have_low_distortion_in_hyperbolic_space(table):
    tree = {kind: float(e.distortion) for kind, e in table["tree"].items()}
    assert tree["h"] < 0.05 and tree["h"] < 0.6 * tree["e"] and tree["h"] < 0.6 * tree["s"]


@pytest.mark.slow
def test_cycles_have_no_distortion_on_a_sphere(table):
    cycle = {kind: float(e.distortion) for kind, e in table["cycle"].items()}
    assert cycle["s"] < 0.005 and cycle["e"] > 0.09 and cycle["h"] > 0.09
    # The circumference is 20: the sphere has learned a radius of 20 / 2 pi.
    (scale,) = (p["log_scale"] for p in table["cycle"]["s"].params)
    np.testing.assert_allclose(jnp.exp(scale), 20 / (2 * np.pi), rtol=0.01)


@pytest.mark.slow
def test_grids_gain_nothing_from_hyperbolic_space(table):
    grid = {kind: float(e.distortion) for kind, e in table["grid"].items()}
    assert grid["e"] < 1.01 * grid["h"]


@pytest.mark.slow
def test_a_free_curvature_finds_the_sign_that_a_cycle_has():
    found = embed.fit(shapes.cycle(12), Product((("k", 1, 3),)), Config(steps=800), key=KEY)
    (params,) = found.params
    assert params["kappa"][0] > 0 and found.distortion < 0.1


@pytest.mark.slow
def test_a_line_is_embedded_exactly_in_the_plane():
    found = embed.fit(shapes.line(8), Product((("e", 1, 2),)), Config(steps=800), key=KEY)
    assert found.distortion < 2e-3 and found.worst_case_distortion < 1.02
    assert found.mean_average_precision == 1


@pytest.fixture(scope="module")
def tiny():
    return embed.fit(shapes.tree(2), MIXED, TINY, key=KEY)


def test_an_embedding_holds_its_nodes_and_measures_what_it_says(tiny):
    graph = shapes.tree(2)
    assert tiny.nodes == graph.nodes and tiny.product == MIXED and tiny.losses.shape == (4,)
    wanted, pairs = graph.distances(), ~np.eye(7, dtype=bool)
    found = np.asarray(tiny.distances())
    np.testing.assert_allclose(found, found.T, atol=1e-5)
    expected = (np.abs(found - wanted) / np.where(pairs, wanted, 1))[pairs].mean()
    np.testing.assert_allclose(tiny.distortion, expected, rtol=1e-3)
    again = manifold.project(MIXED, tiny.params, tiny.points)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), again, tiny.points)


def test_the_same_key_gives_the_same_embedding_and_another_another(tiny):
    again, other = (embed.fit(shapes.tree(2), MIXED, TINY, key=k) for k in (KEY, jax.random.key(1)))
    chex.assert_trees_all_equal(again, tiny)
    assert again.distortion != other.distortion


@pytest.mark.slow
def test_padding_and_batching_change_nothing():
    shaped = [shapes.tree(2), shapes.cycle(5)]
    signatures = [MIXED, Product((("h", 1, 2),)), Product((("e", 1, 3), ("s", 2, 2)))]
    together = embed.fit_all(shaped, signatures, TINY, key=KEY, pad_to=9)
    wanted, spec = problem.prepare(shaped, 9), slots.stack(signatures)
    for i in range(2):
        for j in range(3):
            assert together[i][j].points.shape == (len(shaped[i]),) and together[i][j].product == signatures[j]
            at = jax.tree.map(lambda a, j=j: a[j], spec)
            place = _place(together[i][j], at, 9)
            found = slots.distances(at, place)[: len(shaped[i]), : len(shaped[i])]
            np.testing.assert_allclose(found, together[i][j].distances(), atol=1e-2)
    assert wanted.pairs.sum() == 7 * 6 + 5 * 4


def _place(embedding, spec, n):
    """The embedding's points as the slots of a batch."""
    x, row = jnp.zeros((*spec.coordinates.shape[:1], n, spec.coordinates.shape[1] + 1)), 0
    scale = jnp.zeros(spec.sign.shape)
    for part, params in zip(embedding.points.parts, embedding.params, strict=True):
        for copy in range(part.shape[1]):
            x = x.at[row, : part.shape[0], : part.shape[2]].set(part[:, copy])
            scale = scale.at[row].set(params["log_scale"][copy] if params else 0.0)
            row += 1
    return slots.Place(x, scale)


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["l2", "l1", "min"])
def test_slots_measure_what_the_manifold_measures(reduction):
    params = manifold.init(MIXED)
    params = ({"log_scale": jnp.array([0.3, -0.2])}, {}, {"log_scale": jnp.array([0.5])})
    x = manifold.random_points(MIXED, params, (6,), key=KEY, scale=0.6)
    expected = manifold.distance(MIXED, params, x[:, None], x[None], reduction=reduction)
    spec = jax.tree.map(lambda a: a[0], slots.stack([MIXED, Product((("e", 6, 7),))]))
    holder = embed.Embedding(x, params, *[jnp.zeros(())] * 3, jnp.zeros(1), jnp.array(True), MIXED, tuple("abcdef"))
    found = slots.distances(spec, _place(holder, spec, 6), reduction=reduction)
    apart = ~np.eye(6, dtype=bool)  # the distance of a point to itself is rounding here
    np.testing.assert_allclose(found[apart], expected[apart], atol=2e-3)


def test_points_that_are_lost_have_no_distortion_to_report(tiny):
    spec = jax.tree.map(lambda a: a[0], slots.stack([MIXED]))
    place = _place(tiny, spec, 7)
    found = slots.distances(spec, place._replace(x=place.x.at[0, 0].set(jnp.nan)))
    wanted = jax.tree.map(lambda a: a[0], problem.prepare([shapes.tree(2)]))
    assert np.isnan(found[0]).all() and np.isnan(problem.score(found, wanted).distortion)


@pytest.mark.parametrize("some", [False, True])
def test_gradients_of_distances_are_those_of_the_manifold(some, x64):
    product = Product((("h", 1, 3), ("e", 1, 2), ("s", 2, 2)))
    spec = jax.tree.map(lambda a: a[0].astype(float), slots.stack([product, Product((("e", 5, 4),))]))
    x = ambient.project(slots.init(spec, 6, key=KEY, scale=0.8).x.astype(float), spec.sign[:, None])
    # Two equal points, between which the gradient is rounding.
    x = x.at[:, 5].set(x[:, 4])
    weights = jax.random.normal(jax.random.key(1), (6, 6), float) * ~np.eye(6, dtype=bool)
    weights = weights.at[4, 5].set(0).at[5, 4].set(0)[: 2 if some else 6]
    by_slots = lambda x, scale: slots.distances(spec, slots.Place(x, scale), x[:, :2] if some else None)

    def by_manifold(x, scale):
        one = lambda k: ambient.distance(x[k][: 2 if some else 6, None], x[k][None], spec.sign[k])
        each = jnp.stack([jnp.exp(scale[k]) * one(k) for k in range(4)])
        return safe_sqrt(jnp.sum(each**2, axis=0))

    scale = jnp.array([0.2, 0.0, -0.3, 0.1, 0.0])
    np.testing.assert_allclose(by_slots(x, scale), by_manifold(x, scale), atol=1e-7)  # of equal points it is rounding
    ours, theirs = (
        jax.grad(lambda x, s, f=f: jnp.sum(weights * f(x, s)), argnums=(0, 1))(x, scale)
        for f in (by_slots, by_manifold)
    )
    # A hyperboloid's first coordinate is that of its rest: gradients agree along the space.
    along = lambda g: jax.vmap(ambient.riemannian_gradient)(x[:4], g[:4], spec.sign[:4])
    np.testing.assert_allclose(along(ours[0]), along(theirs[0]), atol=1e-9)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-9)
    assert np.isfinite(jax.grad(lambda x: jnp.sum(by_slots(x, scale)))(x)).all()


def test_other_numbers_do_not_compile_again(tiny):
    before = embed._train._cache_size()
    embed.fit(shapes.tree(2), MIXED, Config(steps=4, batch=4, learning_rate=0.01, clip_step=0.1), key=KEY)
    assert embed._train._cache_size() == before


def test_an_embedding_survives_a_checkpoint(tiny, tmp_path):
    checkpoint.save(tmp_path / "embedding", tiny)
    again = checkpoint.restore(tmp_path / "embedding", like=tiny)
    chex.assert_trees_all_equal(again, tiny)


def test_a_graph_that_is_not_connected_is_refused():
    parts = graphs.from_edges([("a", "b"), ("c", "d")])
    with pytest.raises(ValueError, match=r"must be connected, .* has 2 components: embed its largest_component"):
        embed.fit(parts, MIXED, TINY, key=KEY)
    with pytest.raises(ValueError, match="at least 2 nodes"):
        embed.fit(graphs.from_edges([], nodes=["a"]), MIXED, TINY, key=KEY)
    with pytest.raises(ValueError, match="pad_to must be at least the 7 nodes"):
        problem.prepare([shapes.tree(2)], 5)
    with pytest.raises(ValueError, match="must not be empty"):
        embed.fit_all([], [MIXED], TINY, key=KEY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps and batch must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"initial_scale": float("nan")}, "initial_scale must be positive, got nan"),
        ({"scale_learning_rate": -1.0}, "scale_learning_rate must not be negative"),
        ({"loss": "cubic"}, "loss must be one of"),
        ({"reduction": "max"}, "reduction must be one of"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes, message, unchecked_types):
    with pytest.raises(ValueError, match=message):
        Config(**changes)
