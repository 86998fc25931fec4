"""The table of mergers measures as a run does, and resumes."""

import pathlib
import shutil
import sys

import pytest

from orthoreg_jax.storage import read_json, write_json

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "experiments"))
import mergers  # noqa: E402
import mergers_page  # noqa: E402


def test_task_arithmetic_is_the_runs_own_addition(finished, tmp_path, monkeypatch):
    tried = {"task_arithmetic": ({},), "tsv_m": ({"rank": 1}, {"rank": 2})}
    for module in (mergers, mergers_page):
        monkeypatch.setattr(module, "TRIED", tried)
    monkeypatch.setattr(mergers_page, "RESULTS", tmp_path)
    # Tasks in another order than that of their names, in which trees are kept.
    run = shutil.copytree(finished, tmp_path / "run")
    config = read_json(run / "config.json")
    config["tasks"] = sorted(config["tasks"], reverse=True)
    write_json(run / "config.json", config)
    methods = [m for m in ("full", "full+orthoreg", "linearized") if m in config["methods"]]
    monkeypatch.setattr(
        sys,
        "argv",
        ["mergers.py", "--run", str(run), "--workdir", str(tmp_path), "--methods", *methods],
    )
    mergers.main()
    assert len(methods) > 1
    runs = read_json(finished / "results.json")["runs"]
    for method in methods:
        for seed in config["seeds"]:
            (own,) = (r for r in runs if (r["method"], r["seed"]) == (method, seed))
            found = read_json(mergers_page.kept(tmp_path, method, seed, "task_arithmetic"))
            assert found["alpha"] == own["addition"]["alpha"]
            assert found["absolute"] == pytest.approx(own["addition"]["absolute"])
            assert found["normalised"] == pytest.approx(own["addition"]["normalised"])
            assert found["at_one"] == pytest.approx(own["addition"]["at_one"]["absolute"])
    page = (tmp_path / "mergers.md").read_text()
    assert "Best of all: " in page and "What a penalty adds" in page
    assert (tmp_path / "mergers.png").stat().st_size > 10_000

    # Nothing is measured twice.
    monkeypatch.setattr(mergers, "measure", None)
    mergers.main()
    assert (tmp_path / "mergers.md").read_text() == page
