"""Trials: a method with its options, fine-tuned on every task with one seed, and measured."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from fleet import Replica, finetune_fleet
from kept import Kept, Trial

from orthoreg_jax.arithmetic.geometry import gram_deviations
from orthoreg_jax.arithmetic.matrices import has_matrices, select_matrices
from orthoreg_jax.arithmetic.rules import rules_for_part
from orthoreg_jax.arithmetic.task_vectors import cosine_matrix, norm
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.config import load_config
from orthoreg_jax.evaluation.accuracy import Evaluator
from orthoreg_jax.evaluation.edited_models import EditedModels, Sets
from orthoreg_jax.experiment.evaluation import make_evaluator, put_sets
from orthoreg_jax.experiment.setup import prepare
from orthoreg_jax.storage import write_json
from orthoreg_jax.training.modes import make_mode
from orthoreg_jax.training.modes.mode import edited_outputs
from orthoreg_jax.training.schedule import count_warmup
from orthoreg_jax.trees import save_tree

ADDED = (
    "test",
    "absolute",
    "normalised",
    "alpha",
    "length",
    "flat",
    "at_edge",
    "at_one",
    "per_task",
)


class Bench:
    """Runs trials of one base model; they share compiled evaluation functions."""

    def __init__(
        self,
        model: str,
        workdir: pathlib.Path,
        base: str,
        *,
        workers: int,
        vectors: bool,
        at_once: int,
    ) -> None:
        """Reads the model and the tasks.

        Args:
          model: "embedded", or a directory.
          workdir: folder of the trials' results, by model name.
          base: the config that trials modify, with all tasks.
          workers: processes that make batches.
          vectors: also store the trials' task vectors.
          at_once: fine-tunings in one program; a trial's are never divided.
        """
        overrides = [f"model={model}", "evaluation.disentanglement_tasks="]
        self.config = load_config(base, [*overrides, "evaluation.feature_images=0"])
        path = pathlib.Path(model)
        self.kept = Kept(workdir / (path.parent.name if path.is_dir() else model))
        self.kept.folder.mkdir(parents=True, exist_ok=True)
        self._workers, self._keep, self._at_once = workers, vectors, at_once
        self.experiment = prepare(self.config, self.kept.folder / "unused")
        self.tasks = list(self.config.tasks)
        self._evaluators: dict[Any, Evaluator] = {}
        self._sets: Sets = put_sets(self.experiment)

    def run(
        self, trials: Sequence[Trial], subsets: Mapping[str, Sequence[str]], negate: bool
    ) -> list[dict[str, Any]]:
        """Runs the trials that are not stored yet; those that can share a fleet do.

        Args:
          trials: in any order.
          subsets: name -> tasks whose vectors are added.
          negate: also measure negation of each task.
        """
        fleets: dict[tuple[str, int, str], list[Trial]] = {}
        for trial in trials:
            if self.kept.found(trial, negate) is None:
                fleets.setdefault((trial.mode, trial.steps, trial.form), []).append(trial)
        for (mode, steps, form), group in fleets.items():
            size = max(1, self._at_once // len(self.tasks))
            for start in range(0, len(group), size):
                part = group[start : start + size]
                self._run_fleet(mode, steps, form, part, subsets, negate)
        found = [self.kept.found(trial) for trial in trials]
        assert all(each is not None for each in found)
        return found  # type: ignore[return-value]

    def _run_fleet(
        self,
        mode: str,
        steps: int,
        form: str,
        trials: Sequence[Trial],
        subsets: Mapping[str, Sequence[str]],
        negate: bool,
    ) -> None:
        training = self.config.training
        share = training.warmup if training.warmup < 1 else training.warmup / training.steps
        vectors = finetune_fleet(
            self.experiment,
            mode,
            [
                Replica(task, trial.seed, trial.learning_rate, trial.strength)
                for trial in trials
                for task in self.tasks
            ],
            steps=steps,
            warmup=count_warmup(share, steps),
            form=form,
            workers=self._workers,
        )
        for number, trial in enumerate(trials):
            own = vectors[number * len(self.tasks) : (number + 1) * len(self.tasks)]
            facts = {
                "trial": dataclasses.asdict(trial),
                "device": jax.devices()[0].device_kind,
                "precision": self.config.matmul_precision,
                "diverged": [t for t, v in zip(self.tasks, own, strict=True) if v is None],
            }
            if not facts["diverged"]:
                by_task = dict(zip(self.tasks, own, strict=True))
                facts |= self.measure(trial, by_task, subsets, negate)
                if self._keep:
                    for task, vector in by_task.items():
                        path = self.kept.folder / "vectors" / trial.name / f"{task}.safetensors"
                        path.parent.mkdir(parents=True, exist_ok=True)
                        save_tree(path, {"visual": vector})
            write_json(self.kept.path(trial), facts)
            print(_line(trial, facts), flush=True)

    def measure(
        self,
        trial: Trial,
        vectors: dict[str, Any],
        subsets: Mapping[str, Sequence[str]],
        negate: bool,
    ) -> dict[str, Any]:
        """Accuracies (shares) and geometry of a trial's vectors; stores which images were right.

        `single` is by split and task, `addition` by subset, `negation` by task. `penalty_share` is
        sum ||G - I|| over the matrices as a share of its value without an update, mean over tasks.
        """
        evaluator = self._evaluator(make_mode(trial.mode, self.config).outputs)
        held = jax.device_put(vectors)
        pretrained = float(norm(self.experiment.params0))

        def edited(tasks: Sequence[str]) -> EditedModels:
            return EditedModels(
                self.config.evaluation,
                evaluator,
                self._sets,
                {task: held[task] for task in tasks},
                self.config.control,
                lambda: None,
                pretrained,
            )

        every = edited(self.tasks)
        addition: dict[str, dict[str, Any]] = {}
        right: dict[str, np.ndarray] = {}
        single = every.single()
        for name, tasks in subsets.items():
            part = edited(tasks)
            found = part.addition({s: {t: single[s][t] for t in tasks} for s in single})
            curve = np.mean(list(found["val"].values()), axis=0)
            addition[name] = {key: value for key, value in found.items() if key in ADDED} | {
                "tasks": list(tasks),
                "val_absolute": float(curve[found["alphas"].index(found["alpha"])]),
                "curve": [found["alphas"], curve.tolist()],
            }
            right |= {f"{name}/{key}": value for key, value in part.correct.items()}
        negation = {task: _negated(every.negation(task)) for task in self.tasks} if negate else None
        right |= every.correct
        packed: dict[str, Any] = {key: np.packbits(value) for key, value in right.items()}
        np.savez_compressed(self.kept.path(trial).with_suffix(".npz"), **packed)
        cosines = np.abs(np.asarray(cosine_matrix(held)))[np.triu_indices(len(held), 1)]
        return {
            "zero_shot": self._zero_shot,
            "images": {task: len(data.labels) for task, data in self._sets["test"].items()},
            "single": single,
            "addition": addition,
            "negation": negation,
            "norms": {task: float(norm(vector)) for task, vector in held.items()},
            "pretrained_norm": pretrained,
            "penalty_share": float(np.mean([_penalty_share(v) for v in vectors.values()])),
            "cosine": float(cosines.mean()),
        }

    @functools.cached_property
    def _zero_shot(self) -> dict[str, dict[str, float]]:
        """Accuracies of the base model, by split and task."""
        evaluator = self._evaluator(edited_outputs)
        return {
            split: dict(zip(sets, evaluator.zero_shot(list(sets.values())).tolist(), strict=True))
            for split, sets in self._sets.items()
        }

    def _evaluator(self, outputs: Callable[..., Any]) -> Evaluator:
        if outputs not in self._evaluators:
            self._evaluators[outputs] = make_evaluator(self.experiment, outputs)
        return self._evaluators[outputs]


def _penalty_share(vector: Any) -> float:
    """Sum of ||G - I|| as a share of its value without an update: sqrt(n), n the smaller side."""
    rules = rules_for_part(vector, VISUAL_MATRICES)
    if not has_matrices(vector, rules):
        return float("nan")
    now = sum(float(np.sum(each)) for each in gram_deviations(vector, rules).values())
    shapes = [matrices.shape for matrices in select_matrices(vector, rules).values()]
    return now / sum(count * min(sides) ** 0.5 for count, *sides in shapes)


def _negated(found: Any) -> dict[str, Any]:
    """What is stored of a task's negation: each share's choice, with its validation accuracy."""
    shares = {}
    for share, choice in found["shares"].items():
        place = found["alphas"].index(choice["alpha"])
        shares[share] = choice | {"target_val": found["target_val"][place]}
    return {"length": found["length"], "shares": shares}


def _line(trial: Trial, facts: dict[str, Any]) -> str:
    if facts["diverged"]:
        return f"{trial.name}: diverged on {', '.join(facts['diverged'])}"
    mean = {
        split: 100 * float(np.mean(list(facts["single"][split].values())))
        for split in ("val", "test")
    }
    added = "; ".join(
        f"{name} Abs {100 * each['absolute']:.2f} Norm {100 * each['normalised']:.2f} at "
        f"{each['alpha']:.4g} (val {100 * each['val_absolute']:.2f})"
        for name, each in facts["addition"].items()
    )
    text = f"{trial.name}: single {mean['test']:.2f} (val {mean['val']:.2f}); {added}"
    if facts["negation"]:
        targets = [
            100 * float(np.mean([n["shares"][s]["target"] for n in facts["negation"].values()]))
            for s in ("0.95", "0.9", "0.8")
        ]
        text += "; negation " + " / ".join(f"{target:.2f}" for target in targets)
    return f"{text}; penalty left {facts['penalty_share']:.3f}"
