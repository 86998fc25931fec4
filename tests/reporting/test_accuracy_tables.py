import pytest

from orthoreg_jax.reporting.accuracy_tables import (
    alpha_table,
    analogy_table,
    difference_table,
    other_search_table,
    summary_table,
    task_table,
)
from orthoreg_jax.reporting.tables import Table, format_markdown, format_text


def test_summary_of_one_seed(results):
    table = summary_table(results)
    assert table.header == (
        *("Method", "Single-task", "Abs", "Norm", "α"),
        *("Negation 95 %", "Negation 80 %"),
    )
    assert table.rows == (
        ("Zero-shot", "30.00", "30.00", "–", "–", "30.00 / 50.00", "30.00 / 50.00"),
        # Norm: (0.6 / 0.8 + 0.4 / 0.6) / 2
        ("Non-linear FT", "70.00", "50.00", "70.83", "0.500", "15.00 / 48.00", "15.00 / 48.00"),
        (
            *("Non-linear FT + OrthoReg", "60.00", "50.50", "83.57", "1.000*"),
            *("10.00 / 48.00*", "10.00 / 48.00*"),
        ),
    )
    edges = [note for note in table.notes if note.startswith("*")]
    assert len(edges) == 3  # addition, and negation with two shares
    assert "other things" in table.notes[0]
    assert not any("±" in note for note in table.notes)


def test_summary_of_two_seeds(two_seeds):
    row = summary_table(two_seeds).rows[1]
    # Deviation of 0.7 and 0.8 with divisor 1: 0.1 / sqrt 2.
    assert row[1] == "75.00 ± 7.07"
    assert row[2] == "55.00 ± 7.07"
    assert row[4] == "0.500 ± 0.000"
    assert row[5] == "20.00 ± 7.07 / 47.00 ± 1.41"
    assert summary_table(two_seeds).rows[2][4] == "0.750 ± 0.354*"
    assert summary_table(two_seeds).notes[-1] == "±: sample standard deviation over 2 seeds."


def test_task_table(results):
    table = task_table(results)
    assert table.rows[0] == (
        *("Task A", "Non-linear FT", "80", "40.00", "80.00", "60.00", "20.00", "48.00", "0.50"),
    )
    assert table.rows[3] == (
        *("", "Non-linear FT + OrthoReg", "", "", "50.00", "40.00", "10.00", "48.00", "1.00*"),
    )
    assert table.notes[1] == "* α is the largest tried."


def test_difference_table(two_seeds):
    table = difference_table(two_seeds)
    assert [row[:2] for row in table.rows] == [
        ("Non-linear FT + OrthoReg", "Non-linear FT"),
        ("Non-linear FT + OrthoReg", "Zero-shot"),
    ]
    assert table.rows[0][2:] == (
        "−10.00 ± 2.00 [−20.00, −5.00]",
        "+0.50 ± 2.00 [−3.00, +4.00]",
        "−5.00 ± 2.00 [−8.00, −1.00]",
        "+1.00 ± 2.00 [−1.00, +3.00]",
    )


def test_alpha_table(two_seeds):
    table = alpha_table(two_seeds)
    first = table.rows[0]
    assert first[:4] == ("Non-linear FT", "0.5 ± 0", "0.5 to 1", "0.25 ± 0")
    # Abs is 0.5 and 0.6, at alpha 1 and per task as well: the numbers by hand are the same.
    assert first[4] == first[6] == first[8] == "55.00 ± 7.07"
    for run in two_seeds["runs"][:2]:
        run["addition"]["per_task"] = None
    plain, other = alpha_table(two_seeds).rows
    assert plain[-2:] == ("–", "–") and other[-2:] != plain[-2:]
    for run in two_seeds["runs"]:  # what nobody measured has no column
        run["addition"]["per_task"] = None
    table = alpha_table(two_seeds)
    assert {len(row) for row in table.rows} == {len(table.header)} == {len(first) - 2}
    assert "Per task" not in table.notes[0] and table.rows[0] == first[:-2]


def test_analogy_table(results):
    table = analogy_table(results)
    assert table.rows == (
        ("b : a = a : b", "Non-linear FT", "20.00", "35.00", "45.00", "80.00"),
        ("", "Non-linear FT + OrthoReg", "20.00", "35.00", "45.00", "80.00"),
    )
    for run in results["runs"]:
        run["analogies"] = []
    assert analogy_table(results) is None


def test_the_other_search_is_a_summary_of_its_own(results):
    assert other_search_table(results) is None
    for run in results["runs"]:
        addition = run["addition"] | {"alpha": 0.125, "absolute": 0.375, "at_edge": True}
        run["other_search"] = {"addition": addition, "negation": run["negation"]}
    table, summary = other_search_table(results), summary_table(results)
    assert table.title == "Summary, α from the grid" and table.header == summary.header
    assert [row[2] for row in table.rows] == ["30.00", "37.50", "37.50"]
    assert [row[4] for row in table.rows] == ["–", "0.125*", "0.125*"]
    for row, other in zip(table.rows, summary.rows, strict=True):
        assert row[5:] == other[5:]
    results["config"]["evaluation.alpha_search"] = "grid"
    assert other_search_table(results).title == "Summary, α refined"


def test_text_is_aligned():
    table = Table("T", ("name", "x"), (("a", "1.00"), ("long name", "10.00")), ("a note",))
    assert format_text(table).splitlines() == [
        "name           x",
        "---------  -----",
        "a           1.00",
        "long name  10.00",
        "a note",
    ]


def test_markdown():
    table = Table("T", ("name", "x"), (("a|b", "1.00*"),), ("* a note",))
    assert format_markdown(table).splitlines() == [
        *("## T", "", "| name | x |", "| --- | ---: |", "| a\\|b | 1.00* |", "", "\\* a note"),
    ]


@pytest.mark.parametrize("make", [summary_table, task_table, difference_table])
def test_rows_are_as_long_as_the_header(two_seeds, make):
    table = make(two_seeds)
    assert {len(row) for row in table.rows} == {len(table.header)}


def test_a_task_that_cannot_be_forgotten_is_noted(results):
    assert not any("α = 0.00" in note for note in task_table(results).notes)
    results["runs"][0]["negation"]["a"]["shares"]["0.95"]["alpha"] = 0.0
    assert any("α = 0.00" in note for note in task_table(results).notes)
