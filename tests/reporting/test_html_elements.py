import itertools
import re

import numpy as np
import pytest

from orthoreg_jax.reporting.accuracy_tables import summary_table, task_table
from orthoreg_jax.reporting.html_elements import STYLE_SHEET, format_html, method_key
from orthoreg_jax.reporting.style import MARKERS
from orthoreg_jax.reporting.summary import group_methods
from orthoreg_jax.reporting.tables import Table

# Machado, Oliveira and Fernandes (2009), on linear RGB: eyes without red or green cones.
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deutan": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
}


def schemes():
    """Variables of the page in light and in dark."""
    light, dark = re.findall(r":root \{([^}]*)\}", STYLE_SHEET)
    return [dict(re.findall(r"--(\w+): (#\w{6});", text)) for text in (light, dark)]


def linear(colour):
    """Linear RGB of a colour, as WCAG 2 and sRGB have it."""
    parts = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def contrast(one, other):
    low, high = sorted(linear(colour) @ [0.2126, 0.7152, 0.0722] for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb):
    """CIELAB of linear RGB under D65."""
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.clip(matrix @ rgb, 0, None) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("scheme", schemes(), ids=["light", "dark"])
def test_text_can_be_read(scheme):
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    for ground in ("paper", "card"):
        for text in ("ink", "soft", "accent", *MARKERS):
            assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)


@pytest.mark.parametrize("eyes", BLINDNESS)
@pytest.mark.parametrize("scheme", schemes(), ids=["light", "dark"])
def test_modes_can_be_told_apart(scheme, eyes):
    seen = {mode: lab(BLINDNESS[eyes] @ linear(scheme[mode])) for mode in MARKERS}
    for one, other in itertools.combinations(MARKERS, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 15, (one, other)


def test_every_variable_is_defined():
    used = set(re.findall(r"var\(--(\w+)\)", STYLE_SHEET))
    light, dark = schemes()
    assert used <= set(light) and set(light) == set(dark)


def test_headings_of_sortable_tables_are_buttons(results):
    table = task_table(results)
    text = format_html(table)
    assert text.count("<button") == text.count('aria-sort="none"') == len(table.header)
    assert text == format_html(table)
    # What is said once for a group is in every row, hidden until rows are moved.
    assert text.count('<span class="again">Task A</span>') == 1


@pytest.mark.parametrize(("title", "rows"), [("", 3), ("Short", 2)])
def test_lists_are_not_sortable(title, rows):
    text = format_html(Table(title, ("a", "b"), (("x", "1"),) * rows))
    assert "<button" not in text and "sortable" not in text


def test_methods_have_their_sign_in_tables(results):
    methods = {method.label: method.name for method in group_methods(results)}
    text = format_html(summary_table(results), methods)
    assert method_key("full") + "Non-linear FT</td>" in text
    assert method_key("full+orthoreg") + "Non-linear FT + OrthoReg</td>" in text
    assert ("var(--full)" in method_key("full")) and "○" in method_key("full")
    assert ("var(--full)" in method_key("full+orthoreg")) and "●" in method_key("full+orthoreg")
