"""Drawings of graphs in curved spaces of two dimensions: the Poincaré disc and the sphere, edges as geodesics."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from zsml_jax.report.plot import PALETTE, empty_figure

if TYPE_CHECKING:
    import matplotlib.figure


def disc(x: Float[np.ndarray, "n 2"], edges: Int[np.ndarray, "m 2"], *, title: str = "") -> "matplotlib.figure.Figure":
    """Draws a graph in the Poincaré disc.

    Args:
      x: points inside of the unit disc, ``(n, 2)``.
      edges: positions of the ends of each edge.
      title: of the figure.

    Raises:
      ValueError: if a point is not inside of the disc.
    """
    if not (np.linalg.norm(x, axis=1) < 1).all():
        raise ValueError("x must lie inside of the unit disc")
    figure, axes = empty_figure(4.4, 4.4, title)
    circle = np.exp(2j * np.pi * np.linspace(0, 1, 200))
    axes.plot(circle.real, circle.imag, color=PALETTE[0], lw=1)
    for a, b in edges:
        arc = _disc_geodesic(x[a], x[b])
        axes.plot(*arc.T, color=PALETTE[0], lw=0.5, alpha=0.35, zorder=1)
    axes.scatter(*x.T, s=14, color=PALETTE[1], zorder=3)
    axes.set_aspect("equal")
    axes.set_axis_off()
    return figure


def sphere(
    x: Float[np.ndarray, "n 3"], edges: Int[np.ndarray, "m 2"], *, title: str = ""
) -> "matplotlib.figure.Figure":
    """Draws a graph on the sphere, what is on its far side paler.

    Args:
      x: points of unit length, ``(n, 3)``; the last coordinate points to the reader.
      edges: positions of the ends of each edge.
      title: of the figure.

    Raises:
      ValueError: if a point is not on the sphere.
    """
    if not np.allclose(np.linalg.norm(x, axis=1), 1, atol=1e-3):
        raise ValueError("x must have points of unit length")
    # Turned, so that most of the graph faces the reader.
    middle = x.mean(axis=0) + np.array([0, 0, 1e-6])
    turn = np.linalg.qr(np.column_stack([middle / np.linalg.norm(middle), np.eye(3)[:, :2]]))[0]
    turned = x @ turn[:, [1, 2, 0]] * np.sign(turn[:, 0] @ middle)
    figure, axes = empty_figure(4.4, 4.4, title)
    circle = np.exp(2j * np.pi * np.linspace(0, 1, 200))
    axes.plot(circle.real, circle.imag, color=PALETTE[0], lw=1)
    for a, b in edges:
        arc = turned[a] + np.linspace(0, 1, 12)[:, None] * (turned[b] - turned[a])
        arc /= np.maximum(np.linalg.norm(arc, axis=1, keepdims=True), 1e-9)
        axes.plot(*arc[:, :2].T, color=PALETTE[0], lw=0.5, alpha=0.4 if arc[:, 2].min() > 0 else 0.12, zorder=1)
    near = turned[:, 2] > 0
    axes.scatter(*turned[near, :2].T, s=14, color=PALETTE[1], zorder=3)
    axes.scatter(*turned[~near, :2].T, s=14, color=PALETTE[1], alpha=0.3, zorder=2)
    axes.set_aspect("equal")
    axes.set_axis_off()
    return figure


def _disc_geodesic(a: np.ndarray, b: np.ndarray, points: int = 65) -> np.ndarray:
    """The geodesic of two points of the disc, by moving the first to the centre, where geodesics are straight."""
    p, q = complex(*a), complex(*b)
    moved = (q - p) / (1 - np.conj(p) * q)
    # Even steps of hyperbolic length: of Euclidean length nearly all would lie beside the ends.
    length = min(abs(moved), 1 - 1e-15)
    straight = np.tanh(np.linspace(0, 1, points) * np.arctanh(length)) * np.exp(1j * np.angle(moved))
    back = (straight + p) / (1 + np.conj(p) * straight)
    return np.stack([back.real, back.imag], axis=1)
