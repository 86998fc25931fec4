"""The stage `finetune` with fleets: many fine-tunings of a config in one program, on a GPU.

    python experiments/regime/finetune.py --config configs/embedded_full.py --workdir runs/full
    orthoreg evaluate --config configs/embedded_full.py --workdir runs/full

Writes the task vectors that are missing in the run folder; the rest is an ordinary run. Methods
are modes with or without OrthoReg, and all tasks take `training.steps`.
"""

from __future__ import annotations

import argparse
import pathlib

import jax
from fleet import Replica, finetune_fleet

from orthoreg_jax.config import load_config, split_method
from orthoreg_jax.experiment.experiment import Experiment
from orthoreg_jax.experiment.finetuning import save_vector
from orthoreg_jax.experiment.run_folder import open_folder
from orthoreg_jax.experiment.setup import prepare
from orthoreg_jax.training.schedule import count_warmup


def finetune_missing(experiment: Experiment, workers: int) -> None:
    """Runs one fleet for each mode.

    Raises:
      ValueError: a method has another penalty than OrthoReg, or fine-tuning diverged.
    """
    config = experiment.config
    todo: dict[str, list[tuple]] = {}
    for method in experiment.methods:
        mode, penalties = split_method(method.name)
        if set(penalties) - {"orthoreg"}:
            raise ValueError(f"{method.name}: a fleet knows no other penalty than OrthoReg")
        for seed in config.seeds:
            for task in config.tasks:
                if not experiment.vector_path(method.name, seed, task).is_file():
                    todo.setdefault(mode, []).append((method, seed, task))
    for mode, missing in todo.items():
        vectors = finetune_fleet(
            experiment,
            mode,
            [
                Replica(task, seed, method.learning_rate, method.strengths.get("orthoreg", 0.0))
                for method, seed, task in missing
            ],
            steps=config.training.steps,
            warmup=count_warmup(config.training.warmup, config.training.steps),
            form=config.penalty.form,
            workers=workers,
        )
        for (method, seed, task), vector in zip(missing, vectors, strict=True):
            if vector is None:
                raise ValueError(f"{method.name} seed {seed} {task}: diverged")
            save_vector(experiment, method, seed, task, vector)


def main() -> None:
    """Creates the missing task vectors of a run folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--workers", type=int, default=1, help="processes that make batches")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    with jax.default_matmul_precision(config.matmul_precision):
        experiment = prepare(config, arguments.workdir)
        open_folder(experiment)
        finetune_missing(experiment, arguments.workers)


if __name__ == "__main__":
    main()
