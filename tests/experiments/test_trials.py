"""Searches over trials, whole, on the suite's small model."""

import pathlib
import sys

import pytest

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"
SHORT = ["training.steps=2"]


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)


def test_a_trial_is_fine_tuned_added_and_negated(inputs, tmp_path):
    from trials import ALPHAS, MEASURES, NEGATION, Trials, cells, parser

    arguments = parser("", str(inputs)).parse_args(["--workdir", str(tmp_path), "--set", *SHORT])
    trial = Trials(arguments).run("full+orthoreg", 1e-3, ["penalty.strength=2"], negate=True)
    assert (trial["method"], trial["learning_rate"], trial["seeds"]) == ("full+orthoreg", 1e-3, [0])
    assert len(trial["curve"]) == len(ALPHAS) and trial["alpha"] in ALPHAS
    assert len(cells(trial, MEASURES + NEGATION)) == len(MEASURES + NEGATION)
    # Validation accuracy at the chosen alpha is the curve's there; alpha is by normalised accuracy.
    assert trial["val Abs"] == pytest.approx(trial["curve"][ALPHAS.index(trial["alpha"])])


def test_a_search_picks_by_validation_and_resumes(inputs, tmp_path, monkeypatch, capsys):
    import comparisons
    import search

    monkeypatch.setitem(comparisons.STRENGTHS, "orthoreg", (0.1, 50.0))
    command = ["search.py", "placement", "--config", str(inputs), "--workdir", str(tmp_path)]
    command += ["--groups", "qv", "--learning_rate", "1e-2", "--seeds", "0", "1"]
    command += ["--results", str(tmp_path), "--set", *SHORT]
    monkeypatch.setattr(sys, "argv", command)
    search.main()
    first, kept = (tmp_path / "placement.md").read_text(), (tmp_path / "trials.json").read_text()
    option = "lora.placement=qv"
    tried = {
        each: search.read_json(tmp_path / "trials.json")[
            f"lora+orthoreg, lambda {each}, {option}, seeds 0"
        ]["val Abs"]
        for each in ("0.1", "50")
    }
    best = max(tried, key=tried.get)
    assert f"lora+orthoreg, lambda {best}, {option}, seeds 0, 1, negated" in kept
    assert f"| qv | lora+orthoreg | {best} |" in first
    assert "75.15, then 77.03 (+1.88)" in first  # the paper's table 6
    capsys.readouterr()
    search.main()  # everything is kept: nothing is trained
    assert (tmp_path / "placement.md").read_text() == first
    assert "loss" not in capsys.readouterr().err


def test_orthoreg_joins_the_better_rival():
    from comparisons import Candidate, rivals

    chosen = {
        "taujp": (Candidate("full+taujp", (0.01,)), {"val Abs": 70.0}),
        "tak": (Candidate("full+tak", (0.1,)), {"val Abs": 71.0}),
    }
    joined = rivals("full").rows["both"](chosen)
    assert {each.method for each in joined} == {"full+orthoreg+tak"}
    assert [each.strengths for each in joined][0] == (0.1, 0.1)
    assert joined[0].lambdas == "0.1 / 0.1"
