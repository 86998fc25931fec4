"""Figures for notebooks draw the numbers that they are given."""

import io

import numpy as np
import PIL.Image
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.backends.backend_agg import FigureCanvasAgg

import orthoreg_jax as oj


def test_a_line_for_each_task_and_their_mean():
    accuracy = np.array([[0.1, 0.5], [0.3, 0.9]])
    axes = oj.plot_alphas([0.0, 1.0], accuracy, ["a", "b"]).axes[0]
    drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
    np.testing.assert_allclose(drawn["a"], [0.1, 0.3])
    np.testing.assert_allclose(drawn["b"], [0.5, 0.9])
    np.testing.assert_allclose(drawn["Mean"], [0.3, 0.6])
    assert len(oj.plot_alphas([0.0, 1.0], accuracy[:, :1], ["a"]).axes[0].lines) == 1


def test_cosines_leave_the_diagonal_out():
    values = np.array([[1.0, 0.25], [0.25, 1.0]])
    axes = oj.plot_cosines(values, ["a", "b"]).axes[0]
    cells = axes.collections[0].get_array()
    assert cells.mask.tolist() == [[True, False], [False, True]]
    assert {text.get_text() for text in axes.texts} == {".25"}
    assert axes.collections[0].get_clim() == (-0.25, 0.25)


def test_errors_stand_at_their_alphas():
    error = np.arange(9.0).reshape(3, 3) / 8
    figure = oj.plot_disentanglement([-1.0, 0.0, 1.0], error, ("mnist", "emoji"))
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.collections[0].get_array(), error)
    assert axes.get_xlabel() == "α of emoji" and axes.get_ylabel() == "α of mnist"
    assert "0.50" in axes.get_title(loc="left")


def test_stacked_singular_values_are_averaged():
    axes = oj.plot_singular_values({"k": np.array([[4.0, 2.0], [2.0, 0.5]])}).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [3.0, 1.25])


def test_a_marker_for_each_model():
    found = {"zero-shot": {"a": 0.5, "b": 0.2}, "merged": {"a": 0.75, "b": 0.4}}
    axes = oj.plot_accuracies(found).axes[0]
    for model, own in found.items():
        (line,) = (line for line in axes.lines if line.get_label() == model)
        np.testing.assert_allclose(line.get_xdata(), list(own.values()))
        assert list(line.get_ydata()) == [0, 1]


def test_zeros_are_left_out_and_labels_are_text():
    axes = oj.plot_singular_values({"k": np.array([10.0, 0.1, 1e-8, 0.0]), "z": np.zeros(2)}).axes[
        0
    ]
    drawn = {line.get_label(): line for line in axes.lines}
    assert drawn["k"].get_xdata().tolist() == [1, 2]
    assert drawn["k"].get_ydata().tolist() == [10.0, 0.1] and not len(drawn["z (0)"].get_ydata())
    assert axes.yaxis.get_major_formatter()(0.01, None) == "0.01"


@pytest.mark.parametrize("count", [2, 3, 12, 20])
def test_numbers_on_cells_do_not_overlap_whatever_the_names(count):
    names = [f"a data set with a long name {number}" for number in range(count)]
    figure = oj.plot_cosines(np.eye(count) - 0.123, names)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    axes = figure.axes[0]
    cell = axes.get_window_extent(renderer).width / count
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert len(boxes) == count * (count - 1)
    assert max(box.width for box in boxes) < cell
    shown = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.title]
    for box in (text.get_window_extent(renderer) for text in shown):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1


def test_notebooks_show_figures_without_pyplot():
    figure = oj.plot_cosines(np.eye(2), ["a", "b"])
    bundle, _ = DisplayFormatter().format(figure)
    width, height = PIL.Image.open(io.BytesIO(bundle["image/png"])).size
    assert (width, height) == tuple(int(side) for side in figure.bbox.size)


def test_the_diagonal_is_neither_white_nor_coloured():
    axes = oj.plot_cosines(np.array([[1.0, 0.0], [0.0, 1.0]]), ["a", "b"]).axes[0]
    red, green, blue, alpha = axes.get_facecolor()
    assert max(red, green, blue) < 0.5 and alpha == 0.4


@pytest.mark.parametrize(
    "draw, message",
    [
        (
            lambda: oj.plot_alphas([0.0], np.zeros((2, 1)), ["a"]),
            r"shape \(2, 1\), expected \(1, 1",
        ),
        (
            lambda: oj.plot_cosines(np.eye(2), ["a"]),
            r"cosines has shape \(2, 2\), expected \(1, 1\)",
        ),
        (lambda: oj.plot_disentanglement([0.0], np.zeros((2, 2))), "error has shape"),
        (lambda: oj.plot_singular_values({}), "no singular values to draw"),
        (lambda: oj.plot_accuracies({}), "no accuracy to draw"),
        (lambda: oj.plot_accuracies({"x": {"a": 0.1}, "y": {"b": 0.1}}), r"y has accuracies of"),
        (lambda: oj.plot_accuracies({"x": {"a": 80.0}}), "x: contains 80; give fractions from 0"),
        (lambda: oj.plot_accuracies({"x": {"a": np.nan}}), "x: contains NaN or infinity"),
        (lambda: oj.plot_accuracies({"mnist": 0.5}), "accuracies is {'mnist': 0.5}; give those of"),
        (lambda: oj.plot_alphas([0, 1], np.array([[50.0], [1]]), ["a"]), "accuracy: contains 50;"),
        (lambda: oj.plot_alphas([1, 0], np.ones((2, 1)), ["a"]), "alphas: 1 is followed by 0"),
        (lambda: oj.plot_alphas([0, 1], [["x"], ["y"]], ["a"]), "accuracy is .*; give an array"),
        (lambda: oj.plot_cosines({"mnist": {}}, ["mnist"]), "cosines is .*, a dict; give an array"),
        (lambda: oj.plot_cosines(np.full((2, 2), np.nan), ["a", "b"]), "cosines: contains NaN"),
        (lambda: oj.plot_cosines(2 * np.eye(2), ["a", "b"]), "contains 2; give numbers from -1"),
        (lambda: oj.plot_cosines(np.eye(1), ["a"]), "cosines of 1 vectors; give at least two"),
        (lambda: oj.plot_disentanglement([0.0, 1.0], np.full((2, 2), 3.0)), "error: contains 3;"),
        (lambda: oj.plot_disentanglement([1.0, 0.0], np.ones((2, 2))), "is followed by 0"),
        (lambda: oj.plot_disentanglement([0.0], np.ones((1, 1))), "1 alphas; give at least two"),
        (lambda: oj.plot_singular_values({"k": [1.0, np.nan]}), "k: contains NaN"),
        (lambda: oj.plot_singular_values({"k": [1.0, -1.0]}), "k: has no or negative singular"),
        (
            lambda: oj.plot_singular_values(np.ones(3)),
            "values is an array of .*; give a dict",
        ),
    ],
)
def test_refusals(draw, message, untyped):
    with pytest.raises(ValueError, match=message):
        draw()
