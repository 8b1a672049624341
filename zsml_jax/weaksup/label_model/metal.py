r"""MeTaL's moment matching, as Snorkel's label model does it (Ratner et al., AAAI 2019).

With one-hot votes :math:`L`, their second moments :math:`O = L^\top L / n`, the class balance :math:`P =
\mathrm{diag}(p)` and :math:`\mu_{(j, c), y} = p(\lambda_j = c | y)`, gradient descent minimises

.. math:: \sum_{i \ne j} \lVert O_{ij} - \mu_i P \mu_j^\top \rVert^2
    + \lVert \mu p - \mathrm{diag}(O) \rVert^2 + \lVert \ell_2 (\mu - \mu_0) \rVert^2 ,

where the first sum leaves out each function's block with itself. The balance must be known: two solutions that exchange
classes of equal balance fit the same moments, and the one that trusts the functions most is taken. The posterior
reads nothing from abstaining.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int
from optax import assignment

from zsml_jax.typing import AnyArray, Array, Scalar
from zsml_jax.weaksup.label_model.moments import second_moments
from zsml_jax.weaksup.label_model.vote_model import VoteModel
from zsml_jax.weaksup.vote_matrix import checked_balance, checked_votes


def fit(
    votes: Int[AnyArray, "n m"],
    k: int,
    *,
    class_balance: Float[AnyArray, " k"] | None = None,
    steps: int = 100,
    learning_rate: Scalar = 0.01,
    momentum: Scalar = 0.9,
    l2: Scalar = 0.0,
    initial_precision: Scalar = 0.7,
    initial_scale: Scalar = 0.5,
) -> VoteModel:
    """Fits the conditional tables to the second moments of the votes.

    Args:
      votes: classes, or -1 for abstain, ``(n, m)``, of at least three functions.
      k: the number of classes.
      class_balance: the probability of each class, ``(k,)``; equal by default.
      steps: of gradient descent. As many as Snorkel's end before convergence, which serves small sets of votes: more
        steps fit the noise of the moments, too.
      learning_rate: of gradient descent. It is lowered where that many functions would make it diverge.
      momentum: of gradient descent.
      l2: the pull towards the starting point.
      initial_precision: the precision that every function is started with.
      initial_scale: what the starting point is multiplied with; Snorkel draws it between 0 and 1.

    Returns:
      The fitted model; ``converged`` says whether the last step changed no entry by more than 1e-4.

    Raises:
      ValueError: if the votes or the balance are not sound, or there are fewer than three functions, whose moments no
        longer decide the tables.
    """
    votes = checked_votes(votes, k, at_least=3)
    balance = checked_balance(class_balance, k)
    options = (learning_rate, momentum, l2, initial_precision, initial_scale)
    return _fit(votes, balance, *options, k=k, steps=steps)


@functools.partial(jax.jit, static_argnames=("k", "steps"))
@jax.default_matmul_precision("highest")
def _fit(
    votes: Array,
    balance: Array,
    learning_rate: Array,
    momentum: Array,
    l2: Array,
    initial_precision: Array,
    initial_scale: Array,
    *,
    k: int,
    steps: int,
) -> VoteModel:
    n, m = votes.shape
    moments = second_moments(votes, k)
    rates = jnp.diagonal(moments)
    own = jnp.repeat(jnp.arange(m), k)
    other = (own[:, None] != own).astype(moments.dtype)
    start = jnp.tile(jnp.diag(1 / balance), (m, 1)) * (rates * initial_precision)[:, None]
    start = jnp.clip(start, 0, 1)

    def loss(mu: Array) -> Array:
        pairs = ((moments - (mu * balance) @ mu.T) * other) ** 2
        return pairs.sum() + ((mu @ balance - rates) ** 2).sum() + ((l2 * (mu - start)) ** 2).sum()

    # Near a solution the largest curvature is about eight times that of mu P mu; beyond 2 (1 + momentum) over it the
    # iteration diverges, which hundreds of functions reach at Snorkel's rate.
    curvature = 8 * jnp.trace(moments) * balance.max() + 2 + 2 * l2**2
    learning_rate = jnp.minimum(learning_rate, (1 + momentum) / curvature)

    def step(state: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        mu, velocity = state
        velocity = momentum * velocity + jax.grad(loss)(mu)
        return (mu - learning_rate * velocity, velocity), None

    first = start * initial_scale
    (mu, velocity), _ = jax.lax.scan(step, (first, jnp.zeros_like(first)), None, length=steps)
    converged = jnp.abs(learning_rate * velocity).max() <= 1e-4
    floor = min(0.01, 10.0 ** -math.ceil(math.log10(n)))  # about one vote among all examples
    mu = _trusting(jnp.clip(mu, floor, 1 - floor), balance, m, k)
    tables = mu.reshape(m, k, k)
    table = jnp.concatenate([jnp.zeros((m, 1, k), mu.dtype), jnp.log(tables)], axis=1)
    return VoteModel(jnp.log(balance), table, converged=converged, iterations=jnp.asarray(steps))


def _trusting(mu: Array, balance: Array, m: int, k: int) -> Array:
    """Returns the columns in the order, among classes of equal balance, that makes the functions most often right."""
    right = mu.reshape(m, k, k).sum(axis=0) * balance
    unequal = jnp.abs(balance[:, None] - balance) > 5e-4
    classes, columns = assignment.hungarian_algorithm(jnp.where(unequal, 1e6, -right))
    return mu[:, jnp.zeros(k, columns.dtype).at[classes].set(columns)]
