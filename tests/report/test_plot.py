"""Figures are checked by the data their artists hold, and once by rendering them."""

import io
import itertools

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from zsml_jax.report import plot

CLASSES = ["business", "sport", "tech"]


def render(figure) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def tick_labels(figure):
    """The labels within the axis as they are drawn, from the left, with their boxes in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    shown = [label for label, at in zip(axes.get_xticklabels(), axes.get_xticks(), strict=True) if low <= at <= high]
    return [(label.get_text(), label.get_window_extent(canvas.get_renderer())) for label in shown]


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(("baseline", "first"), [(True, plot.PALETTE[0]), (False, plot.PALETTE[1])])
def test_the_first_bar_is_grey_only_where_it_is_a_baseline(baseline, first):
    figure = plot.grouped_bars({"a": {"x": 0.1, "y": 0.2}}, baseline=baseline)
    assert matplotlib.colors.to_hex(figure.axes[0].patches[0].get_facecolor()) == first.lower()


def test_grouped_bars_hold_the_values_their_intervals_and_the_published_figures():
    values = {"BBC": {"zero-shot": (0.6, 0.55, 0.64), "OTTER": (0.8, 0.78, 0.83)}, "TREC": {"OTTER": 0.5}}
    figure = plot.grouped_bars(values, published={"BBC": {"OTTER": 0.77}}, title="T")
    (axes,) = figure.axes
    heights = sorted(round(bar.get_height(), 6) for bar in axes.patches)
    assert heights == [50.0, 60.0, 80.0]
    segments = np.concatenate([np.array(line.get_segments())[:, :, 1] for line in axes.collections])
    assert [55.0, 64.0] in segments.round(6).tolist()
    assert [78.0, 83.0] in segments.round(6).tolist()
    marks = [line.get_ydata() for line in axes.lines if line.get_marker() == "D" and len(line.get_ydata())]
    assert 77.0 in np.concatenate(marks)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["BBC", "TREC"]
    assert legend_of(figure) == ["zero-shot", "OTTER", "published"]
    assert render(figure).startswith(b"\x89PNG")


def test_bars_of_one_data_set_stand_in_the_order_of_the_methods():
    figure = plot.grouped_bars({"a": {"x": 0.1, "y": 0.2, "z": 0.3}})
    bars = sorted(figure.axes[0].patches, key=lambda bar: bar.get_x())
    assert [round(bar.get_height()) for bar in bars] == [10, 20, 30]


def test_a_histogram_shows_shares_in_percent():
    figure = plot.label_histogram([1, 1, 2], np.array([0.5, 0.25, 0.25]), [3, 3, 3], CLASSES)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(heights, [25, 25, 50, 50, 25, 25])
    assert legend_of(figure) == ["zero-shot", "adapted", "target"]
    assert render(figure)


def test_a_histogram_of_many_classes_is_sorted_by_the_target():
    k = 40
    target = np.random.default_rng(0).permutation(k) + 1.0
    figure = plot.label_histogram(np.ones(k), target, target, [str(i) for i in range(k)])
    wanted, before, after = (patch.get_data().values for patch in figure.axes[0].patches)
    np.testing.assert_allclose(wanted, np.sort(100 * target / target.sum())[::-1])
    np.testing.assert_allclose(before, 100 / k)
    np.testing.assert_allclose(after, wanted)
    assert render(figure)


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ([1, 2], "before must hold one number for each of the 3 classes, got shape"),
        ([1, -1, 2], "before must be finite, not negative"),
        ([1, np.nan, 2], "before must be finite"),
        ([0, 0, 0], "not all zero"),
    ],
)
def test_a_bad_histogram_is_refused_by_name(before, message):
    with pytest.raises(ValueError, match=message):
        plot.label_histogram(before, [1, 1, 1], [1, 1, 1], CLASSES)


def test_lines_hold_their_values_and_bands():
    x = [1, 10, 100]
    figure = plot.lines(
        x, {"Loki": plot.Band([3, 2, 1], [2, 1, 0], [4, 3, 2]), "argmax": [5, 4, 3]}, xlabel="a", ylabel="b", log_x=True
    )
    (axes,) = figure.axes
    np.testing.assert_array_equal([line.get_ydata() for line in axes.lines], [[3, 2, 1], [5, 4, 3]])
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 0 and band[:, 1].max() == 4
    assert axes.get_xscale() == "log"
    assert render(figure)
    with pytest.raises(ValueError, match="curve 'x' must have one value for each of the 3 points"):
        plot.lines(x, {"x": [1, 2]}, xlabel="", ylabel="")


@pytest.mark.parametrize(("x", "log_x"), [([0.01, 0.1, 1.0], True), ([2, 4, 7], False)])
def test_many_bands_are_bars_side_by_side_that_leave_no_doubt_to_which_point_they_belong(x, log_x):
    curves = {f"curve {i}": plot.Band([1, 2, 3], [0, 1, 2], [2, 3, 5]) for i in range(6)}
    axes = plot.lines(x, curves, xlabel="a", ylabel="b", log_x=log_x).axes[0]
    stands = np.array([line.get_xdata() for line in axes.lines])
    assert (np.diff(stands, axis=0) > 0).all()
    scaled = np.log if log_x else np.asarray
    assert np.abs(scaled(stands) - scaled(x)).max() < np.diff(scaled(x)).min() / 4
    for bars, line in zip(axes.collections, axes.lines, strict=True):
        np.testing.assert_allclose([s[:, 1] for s in bars.get_segments()], [[0, 2], [1, 3], [2, 5]])
        np.testing.assert_allclose([s[0, 0] for s in bars.get_segments()], line.get_xdata())


def test_paths_have_points_of_their_own():
    figure = plot.paths({"a": ([1, 2], [3, 4]), "b": ([5], [6])}, xlabel="coverage", ylabel="error")
    drawn = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].lines}
    assert drawn == {"a": [[1, 3], [2, 4]], "b": [[5, 6]]}
    assert legend_of(figure) == ["a", "b"] and render(figure)
    with pytest.raises(ValueError, match="curve 'a' must have as many values of y as of x, got 1 and 2"):
        plot.paths({"a": ([1, 2], [3])}, xlabel="", ylabel="")


@pytest.mark.parametrize(
    ("x", "ticks"),
    [
        ([2, 4, 8], ["2", "4", "8"]),
        ([5], ["5"]),
        ([10, 11, 12, 13, 100, 1000], ["10", "100", "1000"]),
        (list(range(1, 101)), ["1", "2", "4", "8", "15", "27", "49", "88"]),
    ],
)
def test_the_labels_of_a_logarithmic_axis_are_points_that_lie_apart(x, ticks):
    axes = plot.lines(x, {"a": x}, xlabel="", ylabel="", log_x=True).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ticks
    assert len(axes.get_xticks(minor=True)) == 0


@pytest.mark.parametrize(
    ("x", "ticks"),
    [
        ([1], ["1"]),
        ([0, 1], ["0", "1"]),
        ([1, 2, 3], ["1", "2", "3"]),
        (list(range(5)), ["0", "1", "2", "3", "4"]),
        ([0, 500, 1000], ["0", "200", "400", "600", "800", "1000"]),
        (list(range(1, 13)), ["2", "4", "6", "8", "10", "12"]),
        ([0.0, 0.5, 1.0], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
    ],
)
def test_whole_numbers_have_whole_numbers_as_ticks(x, ticks):
    assert [text for text, _ in tick_labels(plot.lines(x, {"a": x}, xlabel="epoch", ylabel=""))] == ticks


@pytest.mark.parametrize(
    "x",
    [
        np.geomspace(1e-3, 3e-3, 8),
        np.geomspace(1e-4, 1e-2, 12),
        np.arange(1000, 1100, 10),
        2.0 ** np.arange(24),
        [0.05],
    ],
)
def test_the_labels_of_a_logarithmic_axis_do_not_overlap(x):
    labels = tick_labels(plot.lines(x, {"a": np.ones(len(x))}, xlabel="", ylabel="", log_x=True))
    assert len(labels) >= min(len(x), 4)
    for (_, left), (_, right) in itertools.pairwise(labels):
        assert left.x1 + 2 < right.x0


def test_drawing_leaves_the_global_state_of_matplotlib_alone():
    import matplotlib
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    render(plot.grouped_bars({"a": {"x": 0.1}}))
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="at least one data set with one method"):
        plot.grouped_bars({"a": {}})


def test_scattered_points_stand_where_they_were_measured_with_their_intervals():
    figure = plot.scatter(
        {"MoRe": (55e3, (0.8, 0.7, 0.85)), "full": (2e7, 0.9)}, xlabel="parameters", ylabel="accuracy"
    )
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert [(c.lines[0].get_xdata()[0], c.lines[0].get_ydata()[0]) for c in axes.containers] == [(55e3, 80), (2e7, 90)]
    (low, high) = axes.containers[0].lines[2][0].get_segments()[0][:, 1]
    assert (low, high) == (pytest.approx(70), pytest.approx(85))
    assert legend_of(figure) == ["MoRe", "full"]
    assert render(figure)
    for points, message in (({}, "at least one point"), ({"probe": (0, 0.5)}, "positive on a logarithmic axis")):
        with pytest.raises(ValueError, match=message):
            plot.scatter(points, xlabel="", ylabel="")


@pytest.mark.parametrize(
    "names",
    [
        [f"{n} x rank 4, query+key+value, rate 0.005" for n in (1, 2, 4)],
        # Two columns of one row among five.
        ["Softmax", "TS", "Dirichlet", "SB", "Top-HB", "AdaTS", "Colander", "Colander (paper)"],
    ],
)
def test_a_legend_of_long_names_stays_within_its_figure(names):
    figure = plot.scatter({name: (10.0 + i, 0.5) for i, name in enumerate(names)}, xlabel="size", ylabel="accuracy")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.legends[0].get_window_extent(canvas.get_renderer())
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width
    assert legend_of(figure) == names
