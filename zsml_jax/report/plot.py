"""Figures as pure functions: numbers in, a matplotlib figure out; no pyplot, no global state, no display needed."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from zsml_jax.typing import AnyArray, Scalar

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

#: Colours in the order of use, told apart also by colour-blind readers and in grey.
PALETTE = ("#9aa3af", "#2f6db3", "#e58a1f", "#2a9d74", "#b8476b", "#7b61a8", "#3fb0c4", "#6b5b4b")
_INK, _MUTED, _GRID = "#1f2630", "#5b6573", "#e4e7eb"
_MARK: dict[str, Any] = {"ls": "", "marker": "D", "ms": 5, "mfc": "white", "mec": _INK, "mew": 1.2, "zorder": 4}

#: More bands than this are drawn as bars, unless these would be more than that beside each other.
_MOST_BANDS, _MOST_BARS = 4, 12

#: A number, or a value with its interval ``(value, low, high)``, a tuple or a list.
Measured = Scalar | Sequence[Scalar]
#: A row of numbers.
Numbers = Sequence[Scalar] | AnyArray


class Band(NamedTuple):
    """A curve with the band around it; each has one entry a point."""

    value: Numbers
    low: Numbers
    high: Numbers


def grouped_bars(
    values: Mapping[str, Mapping[str, Measured]],
    *,
    published: Mapping[str, Mapping[str, Scalar]] | None = None,
    baseline: bool = True,
    ylabel: str = "accuracy (%)",
    title: str = "",
    scale: float = 100.0,
    digits: int = 1,
) -> "matplotlib.figure.Figure":
    """Draws bars of several methods on several data sets, with the intervals.

    Args:
      values: of each data set, of each method: a number or ``(value, low, high)``. A method may be missing in a set.
      published: figures to mark beside the measured ones, in the same units.
      baseline: whether the first method is one, which is grey; else colours are those of the other plots.
      ylabel: the axis label.
      title: above the figure.
      scale: what values are multiplied with; 100 shows fractions in percent.
      digits: after the point of the numbers above the bars.

    Returns:
      The figure.

    Raises:
      ValueError: if there is nothing to draw.
    """
    groups = list(values)
    methods = list(dict.fromkeys(method for group in values.values() for method in group))
    if not methods:
        raise ValueError("values must hold at least one data set with one method, got none")
    width = 0.8 / len(methods)
    figure, axes = empty_figure(max(4.8, 1.6 + 0.45 * len(groups) * (len(methods) + 1)), 3.6, title)
    for m, method in enumerate(methods):
        at = [i for i, group in enumerate(groups) if method in values[group]]
        value, low, high = scale * np.array([_interval(values[groups[i]][method]) for i in at]).T
        x = np.array(at) + (m - (len(methods) - 1) / 2) * width
        axes.bar(x, value, 0.92 * width, color=_color(m + (not baseline)), label=method, zorder=2)
        spread = np.maximum([value - low, high - value], 0.0)
        if np.nanmax(spread) > 0:
            axes.errorbar(x, value, spread, fmt="none", ecolor=_INK, elinewidth=1.0, capsize=2.5, zorder=3)
        marks = [scale * float((published or {}).get(groups[i], {}).get(method, np.nan)) for i in at]
        axes.plot(x, marks, **_MARK)
        for x_bar, number, *tops in zip(x, value, high, marks, strict=True):
            axes.annotate(
                f"{number:.{digits}f}",
                (x_bar, np.nanmax([number, *tops])),
                xytext=(0, 4 if np.isnan(tops).all() else 7),
                textcoords="offset points",
                ha="center",
                fontsize=7.5,
                color=_MUTED,
            )
    if published:
        axes.plot([], [], label="published", **_MARK)
    axes.set_xticks(range(len(groups)), groups)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.55, len(groups) - 0.45)
    axes.margins(y=0.12)
    axes.set_ylabel(ylabel)
    _legend(figure, axes)
    return figure


def label_histogram(
    before: Numbers,
    after: Numbers,
    target: Numbers,
    classes: Sequence[str],
    *,
    names: tuple[str, str, str] = ("zero-shot", "adapted", "target"),
    title: str = "",
) -> "matplotlib.figure.Figure":
    """Draws how often each class is predicted, before and after an adaptation, beside how often it should be.

    Args:
      before: counts or shares of each class before; they are drawn as shares.
      after: the same after.
      target: the label distribution to reach.
      classes: the classes' names. More than 16 classes are drawn as steps, in falling order of the target.
      names: the legend.
      title: above the figure.

    Returns:
      The figure.

    Raises:
      ValueError: if lengths differ, or a histogram is empty, negative or not finite.
    """
    k = len(classes)
    shares = []
    for name, counts in (("before", before), ("after", after), ("target", target)):
        counts = np.asarray(counts, float)
        if counts.shape != (k,):
            raise ValueError(f"{name} must hold one number for each of the {k} classes, got shape {counts.shape}")
        if not np.isfinite(counts).all() or (counts < 0).any() or counts.sum() == 0:
            raise ValueError(f"{name} must be finite, not negative and not all zero")
        shares.append(100 * counts / counts.sum())
    order = np.argsort(-shares[2], kind="stable") if k > 16 else np.arange(k)
    first, second, wanted = (share[order] for share in shares)
    x = np.arange(k)
    if k > 16:
        figure, axes = empty_figure(7.0, 3.4, title)
        axes.stairs(wanted, np.arange(k + 1) - 0.5, fill=True, color="#d2d7de", label=names[2], zorder=1)
        for share, name, color in ((first, names[0], PALETTE[0]), (second, names[1], PALETTE[1])):
            axes.stairs(share, np.arange(k + 1) - 0.5, color=color, lw=1.6, label=name, zorder=3)
        axes.set_xlabel(f"{k} classes, the most frequent one first")
        axes.set_xlim(-0.5, k - 0.5)
    else:
        figure, axes = empty_figure(max(4.8, 1.4 + 0.75 * k), 3.4, title)
        for share, name, shift, color in ((first, names[0], -0.2, PALETTE[0]), (second, names[1], 0.2, PALETTE[1])):
            axes.bar(x + shift, share, 0.37, color=color, label=name, zorder=2)
        axes.hlines(wanted, x - 0.44, x + 0.44, color=_INK, lw=2.0, label=names[2], zorder=4)
        long = max(map(len, classes)) * k > 90
        axes.set_xticks(
            x, classes, rotation=30 if long else 0, ha="right" if long else "center", rotation_mode="anchor"
        )
        axes.tick_params(axis="x", length=0)
    axes.set_ylabel("share of examples (%)")
    axes.set_ylim(bottom=0)
    _legend(figure, axes)
    return figure


def lines(
    x: Numbers,
    curves: Mapping[str, Band | Numbers],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    log_x: bool = False,
) -> "matplotlib.figure.Figure":
    """Draws curves over a common axis, such as ``E[d^2]`` against the number of observed classes.

    Bands of many curves would hide each other: at few points they are bars, and curves stand a little side by side.

    Args:
      x: the points.
      curves: of each name, the values at ``x``, or a :class:`Band`.
      xlabel: the label of the horizontal axis.
      ylabel: the label of the vertical axis.
      title: above the figure.
      log_x: a logarithmic horizontal axis; whole numbers on another one have whole numbers as ticks.

    Returns:
      The figure.

    Raises:
      ValueError: if a curve has not one value for each point.
    """
    x = np.asarray(x, float)
    figure, axes = empty_figure(5.6, 3.6, title)
    crowded = sum(isinstance(curve, Band) for curve in curves.values()) > _MOST_BANDS and 1 < len(x) <= _MOST_BARS
    for i, (name, curve) in enumerate(curves.items()):
        parts = [np.asarray(part, float) for part in (curve if isinstance(curve, Band) else (curve,))]
        if any(part.shape != x.shape for part in parts):
            raise ValueError(f"curve {name!r} must have one value for each of the {len(x)} points of x")
        # The palette opens with the grey of a baseline, which suits a bar better than a line among lines.
        color = _color(i + 1)
        at, width = (_beside(x, i / (len(curves) - 1) - 0.5, log_x), 1.2) if crowded else (x, 2.0)
        if len(parts) == 3 and crowded:
            axes.vlines(at, parts[1], parts[2], color=color, lw=width, alpha=0.6, zorder=2)
        elif len(parts) == 3:
            axes.fill_between(at, parts[1], parts[2], color=color, alpha=0.16, lw=0, zorder=2)
        # So many points that their marks would touch are a line.
        mark = "o" if len(x) <= 40 else ""
        axes.plot(at, parts[0], color=color, lw=width, marker=mark, ms=4, label=name, zorder=3)
    if log_x:
        axes.set_xscale("log")
        axes.set_xticks(ticks := _spread_out(x), [_short(tick) for tick in ticks])
        axes.minorticks_off()
    elif (x == np.round(x)).all():  # epochs, classes, seeds: there is nothing between two of them
        axes.locator_params(axis="x", nbins=9, steps=[1, 2, 5, 10], integer=True)
        if len(np.unique(x)) == 1:
            axes.set_xticks(x[:1])
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    _legend(figure, axes)
    return figure


def paths(
    curves: Mapping[str, tuple[Numbers, Numbers]], *, xlabel: str, ylabel: str, title: str = ""
) -> "matplotlib.figure.Figure":
    """Draws curves with points of their own on both axes, such as error against coverage as a tolerance grows.

    Args:
      curves: of each name, where its points stand on the horizontal and on the vertical axis.
      xlabel: the label of the horizontal axis.
      ylabel: the label of the vertical axis.
      title: above the figure.

    Returns:
      The figure.

    Raises:
      ValueError: if a curve has not as many points on one axis as on the other.
    """
    figure, axes = empty_figure(5.6, 3.6, title)
    for i, (name, points) in enumerate(curves.items()):
        x, y = (np.asarray(part, float) for part in points)
        if x.shape != y.shape:
            raise ValueError(f"curve {name!r} must have as many values of y as of x, got {y.size} and {x.size}")
        axes.plot(x, y, color=_color(i + 1), lw=1.6, marker="o", ms=4, label=name, zorder=3)
    axes.margins(x=0.05, y=0.08)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    _legend(figure, axes)
    return figure


def scatter(
    points: Mapping[str, tuple[Scalar, Measured]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    scale: float = 100.0,
    log_x: bool = True,
) -> "matplotlib.figure.Figure":
    """Draws one point for each name, such as the accuracy of methods against their numbers of parameters.

    Args:
      points: of each name, where it stands on the horizontal axis, and a number or ``(value, low, high)``.
      xlabel: the label of the horizontal axis.
      ylabel: the label of the vertical axis.
      title: above the figure.
      scale: what values are multiplied with; 100 shows fractions in percent.
      log_x: a logarithmic horizontal axis.

    Returns:
      The figure.

    Raises:
      ValueError: if there are no points, or one is not positive on a logarithmic axis.
    """
    if not points:
        raise ValueError("points must hold at least one point, got none")
    if log_x and (bad := [name for name, (x, _) in points.items() if float(x) <= 0]):
        raise ValueError(f"points must be positive on a logarithmic axis, got others for {bad}")
    figure, axes = empty_figure(5.6, 3.6, title)
    for i, (name, (x, measured)) in enumerate(points.items()):
        value, low, high = scale * np.array(_interval(measured))
        spread = np.maximum([[value - low], [high - value]], 0.0)
        axes.errorbar(float(x), value, spread, fmt="o", ms=7, capsize=3, color=_color(i + 1), label=name, zorder=3)
    if log_x:
        axes.set_xscale("log")
    axes.margins(x=0.08, y=0.12)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    _legend(figure, axes)
    return figure


def empty_figure(width: float, height: float, title: str) -> tuple["matplotlib.figure.Figure", "matplotlib.axes.Axes"]:
    """Returns a figure of so many inches and its axes, with the looks that all figures share."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_MUTED)
    axes.grid(axis="y", color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelcolor=_INK, labelsize=9)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.label.set(color=_INK, size=9.5)
    axes.yaxis.label.set(color=_INK, size=9.5)
    if title:
        figure.suptitle(title, x=0.02, ha="left", color=_INK, fontsize=11.5, fontweight="bold")
    return figure, axes


def _legend(figure: "matplotlib.figure.Figure", axes: "matplotlib.axes.Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    # Bars before marks: the order of drawing would put what a reader compares with first.
    order = sorted(range(len(labels)), key=lambda i: labels[i] in ("published", "target"))
    handles, labels = [handles[i] for i in order], [labels[i] for i in order]
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=_columns(labels, figure.get_figwidth()),
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
    )


def _columns(labels: Sequence[str], width: float, most: int = 5) -> int:
    """Returns the most columns of a legend that a figure of so many inches holds; columns are filled one by one."""
    for columns in range(min(len(labels), most), 1, -1):
        longest = [max(map(len, column)) for column in np.array_split(np.array(labels, object), columns)]
        # In characters of 9 points, of which an inch has 13: a mark and the gaps take the room of seven.
        if sum(length + 7 for length in longest) <= 13 * width:
            return columns
    return 1


def _beside(x: np.ndarray, side: float, log_x: bool) -> np.ndarray:
    """Returns points moved to a side, from -0.5 to 0.5, by as much of a fourth of the least gap between two."""
    place = np.log(x) if log_x else x
    place = place + side / 4 * np.diff(np.sort(place)).min()
    return np.exp(place) if log_x else place


def _spread_out(x: np.ndarray, most: int = 8) -> list[float]:
    """Returns points of x that are far enough apart on a logarithmic axis for their labels."""
    points = np.unique(x)
    whole = np.log(points[-1] / points[0])
    kept = [float(points[0])]
    for point in points[1:]:
        # Half of both labels and a gap, in characters; the axis has room for about 60.
        characters = (len(_short(point)) + len(_short(kept[-1]))) / 2 + 1.5
        if np.log(point / kept[-1]) >= whole * max(1 / most, characters / 60):
            kept.append(float(point))
    return kept


def _short(number: float) -> str:
    return f"{number:.0f}" if number == round(number) and number < 1e6 else f"{number:.3g}"


def _color(i: int) -> str:
    return PALETTE[i % len(PALETTE)]


def _interval(measured: Measured) -> tuple[float, float, float]:
    if isinstance(measured, Sequence):
        value, low, high = (float(part) for part in measured)
        return value, low, high
    return (float(measured),) * 3
