import html
import re

from orthoreg_jax.reporting.samples import CLASSES, class_table, samples_html
from orthoreg_jax.reporting.summary import group_methods

from .conftest import HOSTILE

MODELS = ["zero-shot", *(f"{method}/{edit}" for method in ("full", "full+orthoreg")
                         for edit in ("single", "added", "negated"))]  # fmt: skip


def make_task(classes, shares=None):
    """A task of so many classes, one of which has no image; shares by model."""
    flat = [0.5] * len(classes)
    return {
        "classes": classes,
        "counts": [0, *range(1, len(classes))],
        "accuracies": {
            model: [None, *(shares or {}).get(model, flat)[1:]] for model in MODELS
        },
        "images": [
            {"picture": "data:image/png;base64,AA==", "label": 1,
             "answers": dict.fromkeys(MODELS, 1) | {"full/negated": 0, "full/added": -1}},
        ],
    }  # fmt: skip


def test_each_task_is_folded_away_with_its_answers(results):
    task = make_task(["a & b", HOSTILE])
    samples = {"format": 1, "made_from": "", "share": "0.95", "seed": 0, "tasks": {"a": task}}
    page = samples_html(samples, results)
    assert page.count("<details") == 1 and "<script>" not in page and "keeping 95&nbsp;%" in page
    cells = re.findall(r"<tr><td class=\"word\">.*?</tr>", page.split("Class")[0])
    assert len(cells) == len(MODELS)
    words = [re.sub("<[^>]*>", " ", cell).split() for cell in cells]
    right = html.escape(HOSTILE)
    assert cells[0].endswith(f"<td>{right}</td></tr>") and words[0][0] == "Zero-shot"
    assert cells[2].endswith("<td><del>not finite</del></td></tr>")
    assert cells[3].endswith("<td><del>a &amp; b</del></td></tr>")


def test_a_run_without_samples_says_so(results):
    assert "the stage evaluate adds them" in samples_html(None, results)


def test_tables_leave_out_empty_classes_and_of_many_those_that_change_least(results):
    methods = group_methods(results)
    table = class_table(make_task(["none", "one", "two"]), methods)
    assert [row[0] for row in table.rows] == ["one", "two"] and not table.notes
    assert table.header[:3] == ("Class", "Images", "Zero-shot") and len(table.header) == 9
    assert table.rows[0] == ("one", "1", *["50"] * 7)
    many = [f"c{number}" for number in range(50)]
    moved = {"full/added": [0.5] * 20 + [0.6] * 29 + [0.5]}
    table = class_table(make_task(many, moved), methods)
    assert len(table.rows) == CLASSES and {f"c{number}" for number in range(20, 49)} < {
        row[0] for row in table.rows
    }
    assert table.notes == ("The 30 of 49 classes whose accuracy changes most.",)
