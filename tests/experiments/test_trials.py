"""A trial of a search, whole, on the suite's small model."""

import pathlib

import pytest


def test_a_trial_is_fine_tuned_added_and_negated(inputs, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[2] / "experiments")
    from trials import ALPHAS, MEASURES, NEGATION, Trials, cells, parser

    arguments = parser("", str(inputs)).parse_args(
        ["--workdir", str(tmp_path), "--set", "training.steps=2"]
    )
    trial = Trials(arguments).run("full+orthoreg", 1e-3, 2.0, negate=True)
    assert (trial["method"], trial["strength"], trial["seeds"]) == ("full+orthoreg", 2.0, [0])
    assert len(trial["curve"]) == len(ALPHAS) and trial["alpha"] in ALPHAS
    assert len(cells(trial, MEASURES + NEGATION)) == len(MEASURES + NEGATION)
    # Validation accuracy at the chosen alpha is the curve's there; alpha is by normalised accuracy.
    assert trial["val Abs"] == pytest.approx(trial["curve"][ALPHAS.index(trial["alpha"])])
