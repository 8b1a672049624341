"""A critical-difference diagram: mean ranks on a line, bars over those that are not told apart (Demšar, 2006)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from zsml_jax.report.plot import PALETTE
from zsml_jax.typing import Scalar

if TYPE_CHECKING:
    import matplotlib.figure


def critical_difference(
    ranks: Mapping[str, Scalar], groups: Sequence[Sequence[str]], difference: Scalar, *, title: str = ""
) -> "matplotlib.figure.Figure":
    """Draws mean ranks.

    Args:
      ranks: of each method; 1 is best.
      groups: methods that are not told apart.
      difference: the critical difference, drawn as a scale.
      title: above the figure.

    Returns:
      The figure.

    Raises:
      ValueError: if there are fewer than two methods, or a group names one that has no rank.
    """
    from matplotlib.figure import Figure

    if len(ranks) < 2:
        raise ValueError(f"ranks must hold at least two methods, got {len(ranks)}")
    if unknown := sorted({name for group in groups for name in group} - set(ranks)):
        raise ValueError(f"groups must name methods with ranks, got {unknown}")
    order = sorted(ranks, key=lambda name: float(ranks[name]))
    low, high = 1.0, float(max(len(ranks), 2))
    half = (len(order) + 1) // 2
    figure = Figure(figsize=(7.0, 1.3 + 0.28 * half + 0.14 * len(groups)), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.plot([low, high], [0, 0], color="black", lw=1)
    for tick in range(1, len(ranks) + 1):
        axes.plot([tick, tick], [0, 0.12], color="black", lw=1)
        axes.annotate(str(tick), (tick, 0.2), ha="center", va="bottom", fontsize=8)
    axes.plot([low, low + float(difference)], [0.95, 0.95], color=PALETTE[4], lw=2)
    axes.annotate(f"critical difference {float(difference):.2f}", (low, 1.02), fontsize=8, va="bottom")
    room = 0.25 * len(groups) + 0.3
    for i, name in enumerate(order):
        rank, left = float(ranks[name]), i < half
        depth = -room - 0.42 * (i if left else len(order) - 1 - i)
        end = low - 0.15 if left else high + 0.15
        axes.plot([rank, rank, end], [0, depth, depth], color="#5b6573", lw=0.9)
        text = f"{name}  {rank:.2f}" if left else f"{rank:.2f}  {name}"
        axes.annotate(text, (end, depth), ha="right" if left else "left", va="center", fontsize=8.5)
    for i, group in enumerate(groups):
        ends = [float(ranks[name]) for name in group]
        axes.plot([min(ends) - 0.04, max(ends) + 0.04], [-0.18 - 0.25 * i] * 2, color=PALETTE[1], lw=4)
    axes.margins(x=0.35, y=0.08)
    if title:
        figure.suptitle(title, x=0.02, ha="left", fontsize=11.5, fontweight="bold")
    return figure
