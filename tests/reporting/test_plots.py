import numpy as np

from orthoreg_jax.reporting.geometry_plots import disentanglement, leaf_titles, singular_values
from orthoreg_jax.reporting.page import FIGURES
from orthoreg_jax.reporting.plots import addition, draw_figures, negation, training
from orthoreg_jax.reporting.style import COLOURS, inline_svg, method_colour, to_png, to_svg

LINES = [{"step": 0, "loss": 2.0, "penalty": 5.0}, {"step": 10, "loss": 1.0, "penalty": 4.0}]
METRICS = {"full": [LINES, LINES[:1]], "full+orthoreg": [LINES]}


def test_all_figures_are_made(two_seeds):
    figures = dict(draw_figures(two_seeds, METRICS))
    assert list(figures) == list(FIGURES)
    for figure in figures.values():
        figure.draw_without_rendering()


def test_no_training_figure_without_metrics(results):
    assert "training" not in dict(draw_figures(results, {}))


def test_svg_is_the_same_each_time(results):
    first, second = (to_svg(addition(results)) for _ in range(2))
    assert first == second
    assert "<metadata" not in first


def test_addition_shows_the_mean_over_tasks(results):
    normalised, absolute = addition(results).axes
    np.testing.assert_allclose(absolute.lines[0].get_ydata(), [30, 45, 45])
    expected = [100 * (x / 0.8 + y / 0.6) / 2 for x, y in [(0.4, 0.2), (0.6, 0.3), (0.5, 0.4)]]
    np.testing.assert_allclose(normalised.lines[0].get_ydata(), expected)
    assert absolute.lines[0].get_color() == COLOURS["full"]


def test_negation_shows_the_thresholds(results):
    control = negation(results).axes[1]
    levels = [line.get_ydata()[0] for line in control.lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(levels, [47.5, 40.0])


def test_training_takes_steps_that_every_task_has(results):
    loss, penalty = training(results, METRICS).axes
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), [0])
    np.testing.assert_array_equal(penalty.lines[0].get_ydata(), [5, 4])


def test_disentanglement_is_drawn_where_it_was_measured(results):
    first = disentanglement(results).axes[0]
    np.testing.assert_allclose(
        first.collections[0].get_array(), results["runs"][0]["disentanglement"][0]["error"]
    )
    assert first.get_title(loc="left").endswith("mean ξ 0.44")
    for run in results["runs"]:
        run["disentanglement"] = []
    assert "disentanglement" not in dict(draw_figures(results, {}))


def test_zero_singular_values_can_be_drawn(results):
    for run in results["runs"]:
        for leaves in run["geometry"]["singular_values"].values():
            leaves["projection/kernel"] = [[0.0, 0.0]]
    assert to_png(singular_values(results))


def test_leaf_titles():
    assert leaf_titles(["blocks/mlp/fc1/kernel", "position_embedding"]) == {
        "blocks/mlp/fc1/kernel": "fc1",
        "position_embedding": "position_embedding",
    }
    twice = ["a/fc/kernel", "b/fc/kernel"]
    assert leaf_titles(twice) == {leaf: leaf for leaf in twice}


def test_colours_are_fixed():
    assert len(set(COLOURS.values())) == len(COLOURS)
    assert method_colour("another") == method_colour("another")


def test_inline_ids_do_not_collide(results):
    element = inline_svg(to_svg(addition(results)), "one", "A label")
    assert element.startswith("<svg")
    assert 'aria-label="A label"' in element
    assert 'id="one-figure_1"' in element
    assert "url(#one-" in element and 'href="#one-' in element
