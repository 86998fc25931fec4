"""The stage `evaluate`: from task vectors to results.json."""

from __future__ import annotations

import itertools
import json
from typing import Any

import jax
import numpy as np

from orthoreg_jax.arithmetic.task_vectors import add_task_vectors
from orthoreg_jax.config import flatten_config
from orthoreg_jax.evaluation.accuracy import EvaluationSet, Evaluator, put_evaluation_set
from orthoreg_jax.evaluation.disentanglement import disentanglement_error
from orthoreg_jax.evaluation.results import (
    Addition,
    Disentanglement,
    Features,
    Results,
    Run,
    TaskNegation,
)
from orthoreg_jax.evaluation.selection import choose_addition, choose_negation, normalised
from orthoreg_jax.progress import Progress
from orthoreg_jax.storage import load_tree, read_json, write_json
from orthoreg_jax.training.modes.mode import edited_outputs

from .setup import Experiment, Method, open_folder
from .structure import measure_features, measure_geometry, weight_angles

SPLITS = ("val", "test")
Sets = dict[str, dict[str, EvaluationSet]]  # split -> task -> images on the device


def evaluate_all(experiment: Experiment) -> Results:
    """Measures every method and seed that is not measured yet and writes results.json.

    Raises:
      ValueError: task vectors are missing; they are named, and nothing was measured.
      StorageError: a file cannot be read or written.
    """
    runs = [(method, seed) for method in experiment.methods for seed in experiment.config.seeds]
    missing = [
        str(path)
        for method, seed in runs
        for task in experiment.config.tasks
        if not (path := experiment.vector_path(method.name, seed, task)).is_file()
    ]
    if missing:
        raise ValueError(
            f"{len(missing)} task vectors are missing: {', '.join(missing[:5])}"
            f"{' ...' if len(missing) > 5 else ''}; run the stage `finetune` first"
        )
    open_folder(experiment)
    config = experiment.config
    # One for each way in which vectors act on the model: methods share what is compiled.
    evaluators = {
        outputs: Evaluator(
            experiment.apply, experiment.params0, experiment.preprocessing.normalize, outputs
        )
        for outputs in {edited_outputs, *(method.mode.outputs for method in experiment.methods)}
    }
    pretrained = evaluators[edited_outputs]
    names = (*config.tasks, config.control)
    limits = {
        "val": config.evaluation.max_val_images,
        "test": config.evaluation.max_test_images,
    }
    sets: Sets = {
        split: {
            name: put_evaluation_set(
                experiment.heads[name],
                *experiment.images(name, split, limits[split]),
                config.evaluation.batch_size,
                experiment.shardings,
            )
            for name in names
        }
        for split in SPLITS
    }
    results: Results = {
        "format": 2,
        "config": flatten_config(config),
        "provenance": read_json(experiment.folder / "provenance.json"),
        "tasks": {name: experiment.tasks[name].title for name in config.tasks},
        "control": experiment.tasks[config.control].title,
        "alphas": list(config.evaluation.alphas),
        "disentanglement_alphas": list(config.evaluation.disentanglement_alphas),
        "zero_shot": {
            split: _by_name(names, pretrained.zero_shot(list(sets[split].values())))
            for split in SPLITS
        },
        "weight_angles": weight_angles(experiment.params0),
        "features": _features(experiment, edited_outputs, None),
        "runs": [
            _evaluate_or_read(experiment, evaluators[method.mode.outputs], sets, method, seed)
            for method, seed in runs
        ],
    }
    write_json(experiment.folder / "results.json", results)
    return results


def _evaluate_or_read(
    experiment: Experiment, evaluator: Evaluator, sets: Sets, method: Method, seed: int
) -> Run:
    path = experiment.evaluation_path(method.name, seed)
    config = experiment.config
    options = json.loads(json.dumps(flatten_config(config.evaluation)))
    if path.is_file():
        earlier = read_json(path)
        if isinstance(earlier, dict) and earlier.get("options") == options:
            run: Run = earlier["run"]
            return run
    vectors = {
        task: jax.device_put(
            load_tree(experiment.vector_path(method.name, seed, task))["visual"],
            experiment.shardings.replicated,
        )
        for task in config.tasks
    }
    pairs = list(itertools.combinations(config.evaluation.disentanglement_tasks, 2))
    rounds = len(vectors) * (6 + 2 * len(config.evaluation.control_shares)) + len(pairs)
    with Progress(f"evaluate {method.name} seed {seed}", rounds) as progress:
        single = {
            split: {
                task: _one(evaluator, vector, sets[split][task], progress)
                for task, vector in vectors.items()
            }
            for split in SPLITS
        }
        run = {
            "method": method.name,
            "label": method.label,
            "seed": seed,
            "strength": method.strength,
            "learning_rate": method.learning_rate,
            "single": single,
            "addition": _addition(config, evaluator, sets, vectors, single, progress),
            "negation": {
                task: _negation(config, evaluator, sets, task, vector, progress)
                for task, vector in vectors.items()
            },
            "disentanglement": [
                _disentanglement(experiment, evaluator, vectors, pair, progress) for pair in pairs
            ],
            "geometry": measure_geometry(vectors),
            "features": _features(experiment, method.mode.outputs, vectors),
        }
    write_json(path, {"options": options, "run": run})
    return run


def _one(evaluator: Evaluator, vector: Any, data: EvaluationSet, progress: Progress) -> float:
    return float(evaluator.accuracies([vector], np.ones((1, 1)), [data], progress.update)[0, 0])


def _addition(
    config: Any,
    evaluator: Evaluator,
    sets: Sets,
    vectors: dict[str, Any],
    single: dict[str, dict[str, float]],
    progress: Progress,
) -> Addition:
    failed = [task for values in single.values() for task in values if values[task] == 0]
    if failed:
        raise ValueError(
            f"the model fine-tuned on {', '.join(sorted(set(failed)))} is never right on it, so "
            "that normalised accuracy is not defined: see its metrics.jsonl, and train it anew "
            "with a lower training.learning_rate or penalty.strength, in a new --workdir"
        )
    alphas = np.array(config.evaluation.alphas)
    total = add_task_vectors(list(vectors.values()))
    val_sets, test_sets = ([sets[split][task] for task in vectors] for split in SPLITS)
    val = evaluator.accuracies([total], alphas[:, None], val_sets, progress.update)
    best = choose_addition(alphas, val, np.array(list(single["val"].values())))
    chosen = np.full((1, 1), best.alpha)
    test = evaluator.accuracies([total], chosen, test_sets, progress.update)[0]
    return {
        "val": {task: val[:, column].tolist() for column, task in enumerate(vectors)},
        "alpha": best.alpha,
        "at_edge": best.at_edge,
        "test": _by_name(vectors, test),
        "absolute": float(test.mean()),
        "normalised": float(normalised(test, np.array(list(single["test"].values()))).mean()),
    }


def _negation(
    config: Any, evaluator: Evaluator, sets: Sets, task: str, vector: Any, progress: Progress
) -> TaskNegation:
    alphas = np.array(config.evaluation.alphas)
    target_and_control = {
        split: [sets[split][task], sets[split][config.control]] for split in SPLITS
    }
    target, control = evaluator.accuracies(
        [vector], -alphas[:, None], target_and_control["val"], progress.update
    ).T
    tested: dict[float, Any] = {}  # shares often choose the same alpha
    shares: dict[str, Any] = {}
    for share in config.evaluation.control_shares:
        best = choose_negation(alphas, target, control, share)
        if best.alpha not in tested:
            chosen = np.full((1, 1), -best.alpha)
            tested[best.alpha] = evaluator.accuracies([vector], chosen, target_and_control["test"])[
                0
            ].tolist()
        progress.update(2)
        shares[str(share)] = {
            "alpha": best.alpha,
            "at_edge": best.at_edge,
            "target": tested[best.alpha][0],
            "control": tested[best.alpha][1],
        }
    return {"target_val": target.tolist(), "control_val": control.tolist(), "shares": shares}


def _disentanglement(
    experiment: Experiment,
    evaluator: Evaluator,
    vectors: dict[str, Any],
    pair: tuple[str, str],
    progress: Progress,
) -> Disentanglement:
    config = experiment.config.evaluation
    limit = config.max_disentanglement_images
    first, second = (
        put_evaluation_set(
            experiment.heads[task],
            *experiment.images(task, "test", limit),
            config.batch_size,
            experiment.shardings,
        )
        for task in pair
    )
    error = disentanglement_error(
        evaluator,
        (vectors[pair[0]], vectors[pair[1]]),
        (first, second),
        config.disentanglement_alphas,
    )
    progress.update()
    return {"tasks": list(pair), "error": error.tolist()}


def _features(
    experiment: Experiment, outputs: Any, vectors: dict[str, Any] | None
) -> Features | None:
    wanted = experiment.config.evaluation.feature_images
    return measure_features(experiment, outputs, vectors, wanted) if wanted else None


def _by_name(names: Any, values: np.ndarray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}
