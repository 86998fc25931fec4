import csv
import re

import numpy as np
import pytest

from orthoreg_jax.reporting.geometry_plots import (
    cosines,
    disentanglement,
    leaf_titles,
    norms,
    singular_values,
)
from orthoreg_jax.reporting.page import FIGURES
from orthoreg_jax.reporting.panels import WIDTH, some_of
from orthoreg_jax.reporting.plots import addition, figures, negation, tasks, training
from orthoreg_jax.reporting.style import (
    FILLS,
    PALETTE,
    method_look,
    method_mode,
    method_sign,
    to_png,
    to_svg,
)
from orthoreg_jax.training.penalties import PENALTIES

LINES = [{"step": 0, "loss": 2.0, "penalty": 5.0}, {"step": 10, "loss": 1.0, "penalty": 4.0}]
METRICS = {"full": [LINES, LINES[:1]], "full+orthoreg": [LINES]}
METHODS = [
    mode + plus
    for mode in ("full", "linearized", "attention", "lora")
    for plus in ("", "+orthoreg")
]


def rows(panels, *start):
    """The numbers of those lines of the CSV file that begin so."""
    lines = list(csv.reader(panels.csv().splitlines()))[1:]
    assert {len(line) for line in lines} == {len(panels.rows[0])}
    found = [line[len(start) :] for line in lines if line[: len(start)] == list(start)]
    return [[float(cell) if cell else None for cell in line] for line in found]


def test_all_figures_are_made(two_seeds):
    drawn = figures(two_seeds, METRICS)
    assert list(drawn) == list(FIGURES)
    for draw in drawn.values():
        panels = draw()
        assert panels.figure.get_figwidth() == WIDTH
        panels.figure.draw_without_rendering()


def test_no_training_figure_without_metrics(results):
    assert "training" not in figures(results, {})


def test_svg_is_the_same_each_time(results):
    first, second = (to_svg(addition(results).figure) for _ in range(2))
    assert first == second
    assert "<metadata" not in first


def test_addition_shows_the_mean_over_tasks(results):
    panels = addition(results)
    normalised, absolute = panels.axes
    expected = [0.3, 0.45, 0.45]
    np.testing.assert_allclose(absolute.lines[0].get_ydata(), expected)
    written = [[x, y, None, None] for x, y in zip([0, 0.25, 0.5], expected, strict=True)]
    assert rows(panels, "Absolute: accuracy, %", "Non-linear FT") == written
    expected = [(x / 0.8 + y / 0.6) / 2 for x, y in [(0.4, 0.2), (0.6, 0.3), (0.5, 0.4)]]
    np.testing.assert_allclose(normalised.lines[0].get_ydata(), expected)
    assert absolute.lines[0].get_color() == PALETTE["full"][0]


def test_bands_are_deviations_over_seeds(two_seeds):
    for run in two_seeds["runs"]:
        if run["seed"] == 1:
            run["addition"]["val"] = {"a": [0.5, 0.7, 0.6], "b": [0.3, 0.4, 0.5]}
    found = np.array(rows(addition(two_seeds), "Absolute: accuracy, %", "Non-linear FT"), float)
    mean, spread = np.array([0.35, 0.5, 0.5]), 0.1 / np.sqrt(2)
    np.testing.assert_allclose(found[:, 1:].T, [mean, mean - spread, mean + spread], rtol=1e-5)


def test_negation_shows_the_thresholds(results):
    control = negation(results).axes[1]
    levels = [line.get_ydata()[0] for line in control.lines if len(line.get_ydata()) == 2]
    np.testing.assert_allclose(levels, [0.5, 0.475, 0.4])  # zero-shot, 95 %, 80 %


def test_training_takes_steps_that_every_task_has(results):
    loss, penalty = training(results, METRICS).axes
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), [0])
    np.testing.assert_array_equal(penalty.lines[0].get_ydata(), [5, 4])


def test_disentanglement_is_drawn_where_it_was_measured(results):
    panels = disentanglement(results)
    expected = results["runs"][0]["disentanglement"][0]["error"]
    np.testing.assert_allclose(panels.axes[0].collections[0].get_array(), expected)
    assert panels.axes[0].get_title(loc="left").endswith("mean 0.44")
    written = [
        [x, y, v]
        for x, line in zip((-1, 0, 1), expected, strict=True)
        for y, v in zip((-1, 0, 1), line, strict=True)
    ]
    assert rows(panels, "Non-linear FT") == written
    for run in results["runs"]:
        run["disentanglement"] = []
    assert "disentanglement" not in figures(results, {})


def test_files_hold_the_numbers_of_the_results(two_seeds):
    runs = [run for run in two_seeds["runs"] if run["method"] == "full"]
    added = [run["addition"]["test"]["a"] for run in runs]
    expected = [[pytest.approx(np.mean(added)), pytest.approx(np.std(added, ddof=1), rel=1e-5)]]
    assert rows(tasks(two_seeds), "Task A", "Non-linear FT", "added") == expected
    assert rows(tasks(two_seeds), "Task A", "Zero-shot", "zero-shot") == [[0.4, None]]
    assert rows(norms(two_seeds), "Task B", "Non-linear FT", "norm") == [[2.0, 0.0]]
    assert rows(cosines(two_seeds), "Non-linear FT", "a", "b") == [[-0.25]]
    spectra = rows(singular_values(two_seeds), "fc1", "Non-linear FT")
    np.testing.assert_allclose([line[:2] for line in spectra[:2]], [[1, 0.3], [2, 0.15]])


@pytest.mark.parametrize("count", [0, 1, 23, 80, 1000])
def test_few_points_of_a_long_curve_are_shown(count):
    shown = some_of(count)
    assert len(shown) == min(count, len(shown)) <= 96
    np.testing.assert_array_equal(shown[:24], np.arange(min(24, count)))
    if count:
        assert shown[-1] == count - 1
    if count <= 72:
        assert len(shown) == count


@pytest.mark.parametrize(("count", "whole"), [(2, True), (3, False)])
def test_a_title_is_cut_only_where_its_panel_ends(results, count, whole):
    """Two panels have room for 45 letters, three for 30."""
    title = "Handwritten digits (a subset of MNIST)"
    results["tasks"] = dict.fromkeys("ab"[:count], title)
    if count == 3:
        results["tasks"]["c"] = "Third"
        for run in results["runs"]:
            run["geometry"]["norms"]["c"] = 1.0
    panels = norms(results)
    shown = panels.axes[0].get_title(loc="left")
    assert (shown == title) == whole and shown.startswith("Handwritten digits")
    panels.figure.draw_without_rendering()
    (text,) = panels.axes[0].findobj(lambda each: getattr(each, "_text", "") == shown)
    assert text.get_window_extent().x1 < panels.axes[1].get_window_extent().x0


def test_names_of_methods_do_not_touch(results):
    panels = tasks(results)
    panels.figure.draw_without_rendering()
    upper, lower = (each.get_window_extent() for each in panels.axes[0].get_yticklabels())
    assert upper.y0 - lower.y1 > 0.2 * upper.height


def test_steps_and_positions_have_whole_numbers(results):
    lines = [{"step": step, "loss": 1.0, "penalty": 1.0} for step in range(4)]
    for run in results["runs"]:
        spectra = run["geometry"]["singular_values"]
        run["geometry"]["singular_values"] = {
            task: {"in/kernel": [list(np.geomspace(1, 0.1, 17))], "out/kernel": [[0.5, 0.2]]}
            for task in spectra
        }
    for panels in (training(results, {"full": [lines]}), singular_values(results)):
        panels.figure.draw_without_rendering()
        for axes in panels.axes:
            low, high = axes.get_xlim()
            ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
            assert 1 <= len(ticks) <= 7 and all(tick == round(tick) for tick in ticks)


def test_cosines_of_nothing_are_pale(results):
    for run in results["runs"]:
        run["geometry"]["cosines"] = [[1.0, 0.0004], [0.0004, 1.0]]
    image = cosines(results).axes[0].collections[0]
    assert image.get_clim() == (-0.01, 0.01)
    red, green, blue, _ = image.cmap(image.norm(0.0004))
    assert min(red, green, blue) > 0.9  # nearly white, and written as .000
    for run in results["runs"]:
        run["geometry"]["cosines"] = [[1.0, -0.4], [-0.4, 1.0]]
    assert cosines(results).axes[0].collections[0].get_clim() == (-0.4, 0.4)


def test_axes_of_disentanglement_name_the_tasks_of_the_only_pair(results):
    """Rows of the error, upwards, are of the first task."""
    axes = disentanglement(results).axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("α of a", "α of b")
    for run in results["runs"]:
        run["disentanglement"] += [run["disentanglement"][0] | {"tasks": ["a", "c"]}]
    axes = disentanglement(results).axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("α of the first task", "α of the second task")


def test_zero_singular_values_can_be_drawn(results):
    for run in results["runs"]:
        for leaves in run["geometry"]["singular_values"].values():
            leaves["projection/kernel"] = [[0.0, 0.0]]
    assert to_png(singular_values(results).figure)


def test_leaf_titles():
    assert leaf_titles(["blocks/mlp/fc1/kernel", "position_embedding"]) == {
        "blocks/mlp/fc1/kernel": "fc1",
        "position_embedding": "position_embedding",
    }
    twice = ["a/fc/kernel", "b/fc/kernel"]
    assert leaf_titles(twice) == {leaf: leaf for leaf in twice}


def test_a_mode_has_one_colour_and_the_penalty_another_line():
    looks = {method: method_look(method) for method in METHODS}
    for plain, other in zip(METHODS[::2], METHODS[1::2], strict=True):
        assert looks[plain]["color"] == looks[other]["color"] == PALETTE[plain][0]
        assert looks[plain]["marker"] == looks[other]["marker"]
        assert looks[plain]["linestyle"] != looks[other]["linestyle"]
        assert looks[plain]["markerfacecolor"] != looks[other]["markerfacecolor"]
    for part in ("color", "marker"):
        assert len({look[part] for look in looks.values()}) == 4
    assert len(set(map(method_sign, METHODS))) == 8
    assert method_mode("another") == method_mode("another+orthoreg")


def test_every_penalty_has_a_sign_of_its_own():
    methods = ["lora", *(f"lora+{name}" for name in PENALTIES)]
    assert set(FILLS) == {"", *PENALTIES}
    assert len(set(map(method_sign, methods))) == len(methods)
    looks = [method_look(method) for method in [*methods, "lora+orthoreg+tak"]]
    shapes = {(look["fillstyle"], look["markerfacecolor"], look["linestyle"]) for look in looks}
    assert len(shapes) == len(looks)


@pytest.mark.parametrize("draw", [addition, tasks, negation, singular_values, norms])
def test_figures_have_colours_of_the_palette_only(results, draw):
    svg = to_svg(draw(results).figure)
    used = set(re.findall(r"#[0-9a-f]{6}\b", svg))
    assert PALETTE["full"][0] in used <= {light for light, _ in PALETTE.values()}
    assert "<text" in svg  # letters stay letters
