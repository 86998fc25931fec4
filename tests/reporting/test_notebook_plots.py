"""Figures for notebooks draw the numbers that they are given."""

import numpy as np
import pytest

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
    error = np.arange(9.0).reshape(3, 3)
    figure = oj.plot_disentanglement([-1.0, 0.0, 1.0], error, ("mnist", "emoji"))
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.collections[0].get_array(), error)
    assert axes.get_xlabel() == "α of emoji" and axes.get_ylabel() == "α of mnist"
    assert "4.00" in axes.get_title(loc="left")


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
    ],
)
def test_refusals(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
