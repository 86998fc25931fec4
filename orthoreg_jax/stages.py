"""The stages of an experiment, for the command line and notebooks alike."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence

from ml_collections import ConfigDict

STAGES = ("finetune", "evaluate", "report")


def run_experiment(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    stages: Sequence[str] = STAGES,
    notes: Sequence[str] = (),
) -> pathlib.Path:
    """Runs stages like `orthoreg run`; each skips finished work and resumes interrupted work.

    Args:
      config: from `default_config` or `load_config`.
      workdir: the run folder: new, or started with the same config.
      stages: any of "finetune", "evaluate" and "report"; they run in this order.
      notes: lines on the config, to be printed once everything is checked.

    Returns:
      The run folder, with task vectors (`load_task_vectors`), results.json and report.html.

    Raises:
      ValueError: the stage, config, model, data or run folder is wrong; nothing was written.
      StorageError: a file of the run folder cannot be read or written.
      DivergedError: a loss that is not finite.
      StoppedError: SIGTERM or Ctrl-C came; what was made so far is saved.

    Examples:
      >>> config = oj.load_config("mine.py")
      >>> print(oj.run_experiment(config, "runs/mine", ["finetune"]))
      runs/mine
    """
    import jax

    from .config import validate
    from .experiment.evaluation import evaluate_all, expect_evaluation
    from .experiment.finetuning import expect_finetuning, finetune_all
    from .experiment.image_check import check_images
    from .experiment.setup import prepare
    from .hosts import compare, interruption, is_first
    from .reporting.report import write_report
    from .time_left import Plan

    unknown = [stage for stage in stages if stage not in STAGES]
    if isinstance(stages, str) or unknown or not stages:
        raise ValueError(f"stages {stages!r}; allowed: a list of {', '.join(STAGES)}")
    folder = pathlib.Path(workdir)
    if {*stages} != {"report"}:
        validate(config)
        with jax.default_matmul_precision(config.matmul_precision):
            experiment = prepare(config, folder)
            compare(experiment.facts(stages))
            if is_first():
                print(experiment.describe(), file=sys.stderr)
                for note in notes:
                    print(f"note: {note}", file=sys.stderr)
                for name, task in experiment.tasks.items():
                    for remark in task.remarks():
                        print(f"{name}: {remark}", file=sys.stderr)
            check_images(experiment, stages)
            with interruption.listening():
                plan = Plan()
                if "finetune" in stages:
                    expect_finetuning(experiment, plan)
                if "evaluate" in stages:
                    expect_evaluation(experiment, plan)
                if is_first():
                    print(f"to do: {plan.describe_work() or 'nothing new'}", file=sys.stderr)
                if "finetune" in stages:
                    finetune_all(experiment, plan)
                if "evaluate" in stages:
                    evaluate_all(experiment, plan)
    interruption.stop_if_asked()
    if "report" in stages and is_first():
        write_report(folder)
    return folder
