"""What a mask of tokens means: their positions, the last of them, and who may look at whom in a decoder."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Shaped

from zsml_jax.typing import AnyArray, Array, Scalar


def positions_of(
    is_token_BxT: Shaped[AnyArray, "b t"], seen_B: Int[AnyArray, " b"] | int | None = None
) -> Int[Array, "b t"]:
    """Counts positions over tokens that are not padding, wherever the padding is.

    >>> positions_of(jnp.array([[0, 0, 1, 1], [1, 1, 0, 1]])).tolist()
    [[0, 0, 0, 1], [0, 1, 1, 2]]

    Args:
      is_token_BxT: non-zero at tokens, 0 at padding.
      seen_B: tokens of each row that came before; none if None.

    Returns:
      The position of each token; padding has the position of a token near it.
    """
    counted_BxT = jnp.cumsum(jnp.asarray(is_token_BxT) != 0, axis=1, dtype=jnp.int32) - 1
    return jnp.maximum(counted_BxT if seen_B is None else counted_BxT + jnp.asarray(seen_B)[:, None], 0)


def positions_in_segments(segments_BxT: Int[AnyArray, "b t"]) -> Int[Array, "b t"]:
    """Counts positions from the start of each run of equal numbers.

    >>> positions_in_segments(jnp.array([[1, 1, 1, 2, 2, 0]])).tolist()
    [[0, 1, 2, 0, 1, 0]]

    Args:
      segments_BxT: packed documents by number.
    """
    segments_BxT = jnp.asarray(segments_BxT)
    places_T = jnp.arange(segments_BxT.shape[1], dtype=jnp.int32)
    begins_BxT = segments_BxT != jnp.roll(segments_BxT, 1, axis=1)
    return places_T - jax.lax.cummax(jnp.where(begins_BxT, places_T, 0), axis=1)


def last_tokens(
    x_BxTxD: Float[AnyArray, "b t d"], is_token_BxT: Shaped[AnyArray, "b t"] | None
) -> Float[Array, "b 1 d"]:
    """Returns what stands at each row's last token that is not padding; a row of padding has its first column.

    Args:
      x_BxTxD: a vector for each token.
      is_token_BxT: non-zero at tokens, 0 at padding; all are tokens if None.
    """
    if is_token_BxT is None:
        return jnp.asarray(x_BxTxD)[:, -1:]
    last_B = jnp.max(jnp.where(jnp.asarray(is_token_BxT) != 0, jnp.arange(x_BxTxD.shape[1]), 0), axis=1)
    return jnp.take_along_axis(jnp.asarray(x_BxTxD), last_B[:, None, None], axis=1)


def check_mask(mask: AnyArray | None, tokens: AnyArray, name: str = "attention_mask") -> None:
    """Checks that a mask, if there is one, has an entry for each token.

    Raises:
      ValueError: if it has another shape; one that would broadcast is no exception.
    """
    if mask is not None and mask.shape != tokens.shape:
        raise ValueError(f"{name} must have the shape {tokens.shape}, as the tokens, got {mask.shape}")


def causal_mask(
    slots_T: Int[AnyArray, " t"], key_is_token_BxS: Shaped[AnyArray, "b s"] | None, num_keys: int
) -> Bool[Array, "#b 1 t s"]:
    """Returns where a query may look at a key: at tokens, up to its own slot.

    Args:
      slots_T: the slot of each query among the keys.
      key_is_token_BxS: non-zero at keys that are tokens; all are if None.
      num_keys: the number of keys s.
    """
    mask_1x1xTxS = (jnp.arange(num_keys) <= jnp.asarray(slots_T)[:, None])[None, None]
    if key_is_token_BxS is None:
        return mask_1x1xTxS
    return mask_1x1xTxS & (jnp.asarray(key_is_token_BxS) != 0)[:, None, None, :]


def window_mask(
    query_positions_BxT: Int[AnyArray, "#b t"], key_positions_BxS: Int[AnyArray, "#b s"], window: Scalar
) -> Bool[Array, "#b 1 t s"]:
    """Returns where a key lies less than ``window`` tokens before a query.

    A window of 1 leaves a token itself. Distances count tokens, so padding between them makes no difference.

    Args:
      query_positions_BxT: positions of the queries.
      key_positions_BxS: positions of the keys.
      window: the number of tokens that a query sees, its own included.
    """
    distance_BxTxS = jnp.asarray(query_positions_BxT)[:, :, None] - jnp.asarray(key_positions_BxS)[:, None, :]
    return (distance_BxTxS < window)[:, None]
