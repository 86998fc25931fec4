"""Penalties that look at other tasks, in a whole small run."""

import json
import os
import signal

import numpy as np
import pytest

from orthoreg_jax.experiment.other_tasks import OtherTasks
from orthoreg_jax.experiment.setup import reopen
from orthoreg_jax.reporting.accuracy_tables import summary_table
from orthoreg_jax.reporting.summary import group_methods, penalty_pairs
from tests.small_run import orthoreg

METHODS = ("full", "full+taujp", "full+orthoreg+tak", "delta+drift")
OPTIONS = [
    "--config.penalty.taujp.strength=0.01",
    "--config.penalty.taujp.batch_size=4",
    "--config.penalty.tak.images=8",
    "--config.penalty.drift.images=8",
    "--config.penalty.drift.strength=0.1",
    "--config.penalty.strength=2.0",
    "--config.per_method.full+tak.strength=0.5",
    "--config.per_method.full.learning_rate=5e-4",
    "--config.evaluation.feature_images=0",
    "--config.evaluation.disentanglement_tasks=",
]


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("rivals") / "run"
    assert orthoreg("run", inputs, workdir, f"--config.methods={','.join(METHODS)}", *OPTIONS) == 0
    return workdir


def test_results_and_report_know_each_penalty(run):
    results = json.loads((run / "results.json").read_text())
    plain, taujp, both, delta = group_methods(results)
    assert (delta.label, delta.strengths) == ("DELTA + drift", {"drift": 0.1})
    assert [taujp.label, both.label] == ["Non-linear FT + τJp", "Non-linear FT + OrthoReg + TAK"]
    assert (plain.strengths, taujp.strengths) == ({}, {"taujp": 0.01})
    # Of several penalties each has the strength that it has alone, and the mode's learning rate.
    assert both.strengths == {"orthoreg": 2.0, "tak": 0.5}
    assert [each.runs[0]["learning_rate"] for each in (taujp, both)] == [1e-3, 5e-4]
    assert both.strength_text == "2 / 0.5"
    assert penalty_pairs(results) == [(plain, taujp), (plain, both)]
    assert [row[0] for row in summary_table(results).rows][1:3] == [plain.label, delta.label]
    page = (run / "report.html").read_text()
    for text in (
        "‖ J(x) τ ‖",
        "Kronecker factors",
        "orthonormal",
        "OrthoReg + TAK (λ = 2 / 0.5)",
        # What knows nothing of the other tasks stands first.
        "Fine-tuned with knowledge of the other tasks, another problem than that of the rows "
        "above: Non-linear FT + τJp, Non-linear FT + OrthoReg + TAK.",
    ):
        assert text in page
    assert "put to the test" not in page  # OrthoReg's claims, of which no pair was run


def test_files_of_older_versions_are_read(run):
    results = json.loads((run / "results.json").read_text())
    for each in results["runs"]:
        del each["strengths"]
    assert [method.strengths for method in group_methods(results)][0] == {}
    assert group_methods(results)[2].strengths == {"orthoreg": 2.5}  # it knew no other penalty


def test_the_penalty_is_felt(run):
    """A rival is 0 at the first step, where nothing has changed yet; OrthoReg is not."""
    for method, strength in (("full+taujp", 0.0), ("full+orthoreg+tak", 2.0)):
        for task in ("first", "second"):
            lines = (run / method / "seed3" / task / "metrics.jsonl").read_text().splitlines()
            values = [json.loads(line)["penalty"] for line in lines]
            assert (values[0] == 0) == (strength == 0) and values[-1] != values[0]


def test_resume_is_exact(run, inputs, tmp_path, monkeypatch):
    """Batches of the other task go on where they were."""
    from orthoreg_jax.training import finetune

    original = finetune._MetricsLog.add

    def add_and_stop(self, number, metrics):
        original(self, number, metrics)
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    options = ["--config.methods=full+taujp", "--config.training.checkpoint_every=100", *OPTIONS]
    monkeypatch.setattr(finetune._MetricsLog, "add", add_and_stop)
    assert orthoreg("finetune", inputs, tmp_path / "run", *options) == 143
    monkeypatch.undo()
    assert orthoreg("finetune", inputs, tmp_path / "run", *options) == 0
    for task in ("first", "second"):
        ours, theirs = (
            folder / "full+taujp" / "seed3" / task / "vector.safetensors"
            for folder in (tmp_path / "run", run)
        )
        assert ours.read_bytes() == theirs.read_bytes()


def test_the_control_task_is_none_of_the_others(run):
    experiment = reopen(run)
    asked = []
    others = OtherTasks(experiment, "first", 3, lambda *which: asked.append(which) or {})
    assert others.names == ["second"]
    (feed,) = others.feeds(4)
    np.testing.assert_array_equal(
        feed.split.labels, experiment.tasks["second"].splits["train"].labels
    )
    others.factors(8)
    others.factors(8, True)
    assert asked == [("second", 8, False), ("second", 8, True)]
