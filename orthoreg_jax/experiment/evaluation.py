"""The stage `evaluate`: from task vectors to results.json."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from orthoreg_jax.arithmetic.paths import flatten, unflatten
from orthoreg_jax.arithmetic.task_vectors import norm
from orthoreg_jax.config import GIVEN, flatten_config
from orthoreg_jax.evaluation.accuracy import EvaluationSet, Evaluator, put_evaluation_set
from orthoreg_jax.evaluation.comparisons import Correct, compare_methods
from orthoreg_jax.evaluation.disentanglement import disentanglement_error
from orthoreg_jax.evaluation.edited_models import MEASURED_SPLITS, EditedModels, Sets
from orthoreg_jax.evaluation.features import measure_features
from orthoreg_jax.evaluation.results import (
    FORMAT,
    Disentanglement,
    Features,
    GivenModel,
    Results,
    Run,
)
from orthoreg_jax.evaluation.vector_geometry import measure_geometry, weight_angles
from orthoreg_jax.hosts import interruption, is_first, wait
from orthoreg_jax.progress import Progress
from orthoreg_jax.storage import StorageError, only_one, read_json, read_sealed, write_sealed
from orthoreg_jax.time_left import Plan
from orthoreg_jax.training.modes.mode import edited_outputs
from orthoreg_jax.trees import StoredTree, load_tree, save_tree
from orthoreg_jax.words import counted

from .experiment import Experiment, Method
from .given import GIVEN_FACTS
from .run_folder import open_folder, sharing
from .samples import write_samples
from .searches import count_rounds, searches
from .vectors import open_vector


def expect_evaluation(experiment: Experiment, plan: Plan) -> None:
    """Adds what this process is to measure to a run's plan."""
    for method, seed in _own(_runs(experiment)):
        if not experiment.evaluation_path(method.name, seed).is_file() or not all(
            experiment.vector_path(method.name, seed, task).is_file()
            for task in experiment.config.tasks
        ):
            label, rounds = _label(method, seed), count_rounds(experiment.config)
            plan.expect(label, method.mode.outputs, rounds, "evaluation")


def _runs(experiment: Experiment) -> list[tuple[Method, int]]:
    return [(method, seed) for method in experiment.methods for seed in experiment.config.seeds]


def _own(runs: list[tuple[Method, int]]) -> list[tuple[Method, int]]:
    """This process's share."""
    return runs[jax.process_index() :: jax.process_count()]


def _label(method: Method, seed: int) -> str:
    return f"evaluate {method.name} seed {seed}"


def evaluate_all(experiment: Experiment, plan: Plan | None = None) -> Results:
    """Measures every method and seed not yet measured, and writes results.json.

    Args:
      experiment: checked, by `prepare`.
      plan: the whole run's plan, for the time left.

    Raises:
      ValueError: task vectors are missing. The error names them, and nothing was measured.
      StorageError: a file cannot be read or written, or another process measures the same method.
      StoppedError: SIGTERM or Ctrl-C came; finished measurements are kept.
    """
    runs, plan = _runs(experiment), plan or Plan()
    missing = [
        str(path)
        for method, seed in runs
        for task in experiment.config.tasks
        if not (path := experiment.vector_path(method.name, seed, task)).is_file()
    ]
    if missing:
        raise ValueError(
            f"{counted(len(missing), 'task vector is', 'task vectors are')} missing: "
            f"{', '.join(missing[:5])}"
            f"{' ...' if len(missing) > 5 else ''}; run the stage `finetune` first"
        )
    open_folder(experiment)
    wait("folder")
    config = experiment.config
    # One evaluator for each way that vectors act on the model, so methods share compiled code.
    evaluators = {
        outputs: make_evaluator(experiment, outputs)
        for outputs in {edited_outputs, *(method.mode.outputs for method in experiment.methods)}
    }
    pretrained, sets = evaluators[edited_outputs], put_sets(experiment)
    right = {
        split: {
            name: pretrained.predictions([], np.zeros((1, 0)), data)[0] == data.labels
            for name, data in sets[split].items()
        }
        for split in MEASURED_SPLITS
    }
    zero_shot = {
        split: {name: float(values.mean()) for name, values in right[split].items()}
        for split in MEASURED_SPLITS
    }

    def measure(method: Method, seed: int) -> tuple[Run, Correct]:
        evaluator = evaluators[method.mode.outputs]
        found = _evaluate_or_read(experiment, evaluator, sets, zero_shot["val"], method, seed, plan)
        plan.drop(_label(method, seed))  # if it was read
        return found

    with contextlib.ExitStack() as locks:
        for method, seed in _own(runs):
            locks.enter_context(only_one(experiment.evaluation_path(method.name, seed).parent))
            measure(method, seed)
    wait("evaluated")
    measured = [measure(*run) for run in runs]  # read from the folder
    answers: dict[str, list[Correct]] = {}
    for (method, _), (_, correct) in zip(runs, measured, strict=True):
        answers.setdefault(method.name, []).append(correct)
    untouched = right["test"] | {"control": right["test"][config.control]}
    results: Results = {
        "format": FORMAT,
        "config": flatten_config(config),
        "provenance": read_json(experiment.folder / "provenance.json"),
        "tasks": {name: experiment.tasks[name].title for name in config.tasks},
        "control": experiment.tasks[config.control].title,
        "disentanglement_alphas": list(config.evaluation.disentanglement_alphas),
        "zero_shot": zero_shot,
        "weight_angles": weight_angles(experiment.params0),
        "features": _features(experiment, edited_outputs, None),
        "runs": [run for run, _ in measured],
        "comparisons": compare_methods(untouched, answers, config.evaluation.control_shares),
    }
    if is_first():
        with sharing(experiment.folder):
            _say_what_is_left_out(experiment.folder / "results.json", results)
            write_sealed(experiment.folder / "results.json", results)
            load = functools.partial(load_vectors, experiment)
            write_samples(experiment, evaluators, load, results["runs"], right["test"], answers)
    return results


def _say_what_is_left_out(path: pathlib.Path, results: Results) -> None:
    """Reports runs in an earlier results.json that the new one drops."""
    new = {f"{run['method']} seed {run['seed']}" for run in results["runs"]}
    try:
        old = [f"{run['method']} seed {run['seed']}" for run in read_sealed(path)["runs"]]
    except (StorageError, LookupError, TypeError):  # no such file, or one of an earlier version
        return
    if gone := [name for name in old if name not in new]:
        print(
            f"{path}: drops {', '.join(gone)}, which the config no longer names; add them back to "
            "`methods` and `seeds` to restore them without measuring again",
            file=sys.stderr,
        )


def make_evaluator(experiment: Experiment, outputs: Callable[..., Any]) -> Evaluator:
    """An evaluator for methods whose `Mode` applies task vectors by `outputs`."""
    normalize = experiment.preprocessing.normalize
    return Evaluator(experiment.apply, experiment.params0, normalize, outputs)


def put_sets(experiment: Experiment, tasks: Sequence[str] = ()) -> Sets:
    """Validation and test images of the given tasks; by default, of all tasks and control."""
    options = experiment.config.evaluation
    names = tasks or (*experiment.config.tasks, experiment.config.control)
    return _put(experiment, names, {"val": options.max_val_images, "test": options.max_test_images})


def _put(experiment: Experiment, tasks: Sequence[str], limits: Mapping[str, int]) -> Sets:
    """At most `limits[split]` images of each split, on the device if all of them fit."""
    options = experiment.config.evaluation
    counts = {
        (split, task): len(experiment.tasks[task].splits[split])
        for split in limits
        for task in tasks
    }
    images = sum(min(count, limits[split] or count) for (split, _), count in counts.items())
    on_device = images * 3 * experiment.preprocessing.size**2 <= options.device_megabytes * 2**20
    return {
        split: {
            task: put_evaluation_set(
                experiment.heads[task],
                *experiment.images(task, split, limit),
                options.batch_size,
                experiment.local,
                on_device,
            )
            for task in tasks
        }
        for split, limit in limits.items()
    }


def load_vectors(experiment: Experiment, method: str, seed: int) -> dict[str, Any]:
    """Loads the image tower's task vectors, by task, onto the device."""
    files = _open_vectors(experiment, method, seed)
    vectors = {task: load_tree(file.path)["visual"] for task, file in files.items()}
    return jax.device_put(vectors, experiment.local.replicated)


def _open_vectors(experiment: Experiment, method: str, seed: int) -> dict[str, StoredTree]:
    base = experiment.checkpoint.sha256
    return {
        task: open_vector(experiment.folder, method, seed, task, base)
        for task in experiment.config.tasks
    }


def _evaluate_or_read(
    experiment: Experiment,
    evaluator: Evaluator,
    sets: Sets,
    zero_shot: Mapping[str, float],
    method: Method,
    seed: int,
    plan: Plan | None = None,
) -> tuple[Run, Correct]:
    """Numbers of one method and seed, measured or read, and which test images were correct."""
    path, config = experiment.evaluation_path(method.name, seed), experiment.config
    answers = path.with_name("correct.safetensors")
    files = _open_vectors(experiment, method.name, seed)
    hashes = {task: str(file.about["sha256"]) for task, file in files.items()}
    made_with = {
        "format": FORMAT,
        "options": json.loads(json.dumps(flatten_config(config.evaluation))),
        "task vectors": hashes,
        "prompts and images": _measured_on(experiment),
    }
    if path.is_file() and answers.is_file():
        earlier = read_sealed(path)
        before = earlier.get("made_with")
        before = before if isinstance(before, dict) else {}
        changed = [key for key, value in made_with.items() if before.get(key) != value]
        if not changed:
            if StoredTree(answers).about.get("sha256") != earlier.get("answers"):
                raise StorageError(
                    f"{answers}: does not belong to {path.name} next to it; delete both to measure "
                    "again"
                )
            return earlier["run"], flatten(load_tree(answers))
        print(
            f"{path}: was measured with other {', '.join(changed)}; measuring again",
            file=sys.stderr,
        )
    vectors = load_vectors(experiment, method.name, seed)
    paired = config.evaluation.disentanglement_tasks
    pairs = list(itertools.combinations(paired, 2))
    of_pairs = _put(experiment, paired, {"test": config.evaluation.max_disentanglement_images})
    grid = config.evaluation.disentanglement_alphas
    analogies = [text.split(":") for text in config.evaluation.analogies]
    asked = searches(config)
    label = _label(method, seed)
    outcome = f"{label} begins again next time, finished evaluations are kept"
    with (
        interruption.leading_to(outcome),
        Progress(label, count_rounds(config), plan=plan) as progress,
    ):

        def advance() -> None:
            progress.update()
            interruption.stop_if_asked()

        make_edited = functools.partial(
            EditedModels,
            evaluator=evaluator,
            sets=sets,
            vectors=vectors,
            control=config.control,
            advance=advance,
            pretrained_norm=float(norm(experiment.params0)),
            zero_shot=zero_shot,
        )
        edited, *others = map(make_edited, asked)
        single = edited.single()
        run: Run = {
            "method": method.name,
            "label": method.label,
            "seed": seed,
            "strength": sum(method.strengths.values(), 0.0),
            "strengths": method.strengths,
            "learning_rate": method.learning_rate,
            "vectors": hashes,
            "single": single,
            "addition": edited.addition(single),
            "negation": {task: edited.negation(task) for task in vectors},
            "analogies": [edited.analogy(*tasks) for tasks in analogies],
            "disentanglement": [
                _disentanglement(evaluator, vectors, of_pairs["test"], pair, grid, progress)
                for pair in pairs
            ],
            "geometry": measure_geometry(vectors),
            "features": _features(experiment, method.mode.outputs, vectors),
        }
        if method.name == GIVEN:
            run["models"] = {task: _given_model(file) for task, file in files.items()}
        for other in others:
            run["other_search"] = {
                "addition": other.addition(single),
                "negation": {task: other.negation(task) for task in vectors},
            }
    save_tree(answers, unflatten(edited.correct))
    # Written last: its existence means that both files are complete and match.
    made = {"made_with": made_with, "answers": StoredTree(answers).about["sha256"], "run": run}
    write_sealed(path, made)
    return run, edited.correct


def _given_model(file: StoredTree) -> GivenModel:
    name, sha256, revision = (str(file.about[key]) for key in GIVEN_FACTS)
    return {"name": name, "sha256": sha256, "revision": revision}


def _measured_on(experiment: Experiment) -> dict[str, Any]:
    """Hashes of the prompts and images that the numbers were measured on."""
    return {
        task: {"prompts": facts["prompts_sha256"]}
        | {split: facts["splits"][split]["sha256"] for split in MEASURED_SPLITS}
        for task, facts in experiment.inputs["tasks"].items()
    }


def _disentanglement(
    evaluator: Evaluator,
    vectors: Mapping[str, Any],
    sets: Mapping[str, EvaluationSet],
    pair: tuple[str, str],
    grid: Sequence[float],
    progress: Progress,
) -> Disentanglement:
    one, other = pair
    error = disentanglement_error(
        evaluator, (vectors[one], vectors[other]), (sets[one], sets[other]), grid
    )
    progress.update()
    return {"tasks": list(pair), "error": error.tolist()}


def _features(
    experiment: Experiment, outputs: Any, vectors: dict[str, Any] | None
) -> Features | None:
    wanted = experiment.config.evaluation.feature_images
    if not wanted:
        return None
    batches = {}
    for task in experiment.config.tasks:
        images, labels = experiment.images(task, "test", wanted)
        batches[task] = experiment.preprocessing.normalize(jnp.asarray(images)), labels
    return measure_features(
        experiment.apply, experiment.params0, experiment.heads, batches, outputs, vectors
    )
