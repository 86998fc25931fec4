"""What models say of a few test images of each task, and their accuracies by class, for the report.

RUN/samples.json holds them, apart from results.json: it has pictures in it.
"""

from __future__ import annotations

import base64
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import PIL.Image
from jaxtyping import Bool, Int, UInt8

from orthoreg_jax.arithmetic.task_vectors import add_task_vectors
from orthoreg_jax.evaluation.accuracy import EvaluationSet, Evaluator, put_evaluation_set
from orthoreg_jax.evaluation.comparisons import ZERO_SHOT, Correct
from orthoreg_jax.evaluation.results import Run
from orthoreg_jax.storage import StorageError, json_sha256, read_sealed, write_sealed
from orthoreg_jax.tasks.batches import limited_rows

from .experiment import Experiment

SAMPLES_FORMAT = 1
SAMPLES_FILE = "samples.json"
PICTURES = 6  # of each task, chosen by a fixed seed
SIDE = 64  # largest, of a picture
EDITS = ("single", "added", "negated")


class Sample(TypedDict):
    """A test image, and what each model takes it for; models are "zero-shot" and "METHOD/EDIT"."""

    picture: str  # an address that holds the image
    label: int
    answers: dict[str, int]  # -1: not finite


class TaskSamples(TypedDict):
    """A task's images, and accuracies on all test images of each class."""

    classes: list[str]
    counts: list[int]  # test images of each class
    accuracies: dict[str, list[float | None]]  # by model; None: no image, or no class
    images: list[Sample]


class Samples(TypedDict):
    """The whole file."""

    format: int
    made_from: str  # hash of the numbers that it belongs to
    share: str  # of control accuracy, that negation kept
    seed: int  # of the models that say something of the images; accuracies are means over seeds
    tasks: dict[str, TaskSamples]


def write_samples(
    experiment: Experiment,
    evaluators: Mapping[Any, Evaluator],
    vectors: Any,
    runs: Sequence[Run],
    zero_shot: Correct,
    answers: Mapping[str, Sequence[Correct]],
) -> None:
    """Writes a run's samples.json, unless it is there and belongs to the same numbers.

    Args:
      experiment: that was evaluated.
      evaluators: by the way in which vectors act on the model.
      vectors: (method, seed) -> task vectors by task.
      runs: of results.json.
      zero_shot: which test images the pre-trained model gets right, by task.
      answers: which ones the edited models get right, by method, for each seed.
    """
    path, config = experiment.folder / SAMPLES_FILE, experiment.config
    seed, share = config.seeds[0], str(config.evaluation.control_shares[0])
    made_from = json_sha256([share, experiment.inputs, [_numbers(run) for run in runs]])
    if path.is_file() and _made_from(path) == made_from:
        return
    tasks, sets = {}, {}
    for task in config.tasks:
        images, labels = experiment.images(task, "test", PICTURES)
        tasks[task] = _task(experiment, task, images, labels, zero_shot, answers, share)
        sets[task] = _put(experiment, task, images, labels)
    first = {run["method"]: run for run in runs if run["seed"] == seed}
    for method in experiment.methods:
        taus, run = vectors(method.name, seed), first[method.name]
        total = add_task_vectors(list(taus.values()))
        for task, tau in taus.items():
            alphas = (run["addition"]["alpha"], run["negation"][task]["shares"][share]["alpha"])
            rows = np.array([[0, 0], [1, 0], [0, alphas[0]], [-alphas[1], 0]], np.float32)
            evaluator = evaluators[method.mode.outputs]
            said = evaluator.predictions([tau, total], rows, sets[task])
            names = [ZERO_SHOT, *(f"{method.name}/{edit}" for edit in EDITS)]
            for image, column in zip(tasks[task]["images"], said.T.tolist(), strict=True):
                image["answers"] |= dict(zip(names, column, strict=True))
    samples: Samples = {
        "format": SAMPLES_FORMAT,
        "made_from": made_from,
        "share": share,
        "seed": seed,
        "tasks": tasks,
    }
    write_sealed(path, samples)


def read_samples(folder: pathlib.Path) -> Samples | None:
    """Reads a run folder's samples.json; None where there is none of this format.

    Raises:
      StorageError: it is damaged.
    """
    path = folder / SAMPLES_FILE
    if not path.is_file():
        return None
    try:
        samples: Any = read_sealed(path)
    except StorageError as error:
        raise StorageError(f"{error}; delete it, and run the stage `evaluate` again") from error
    checked: Samples = samples
    return checked if samples.get("format") == SAMPLES_FORMAT else None


def _made_from(path: pathlib.Path) -> str:
    try:
        return str(read_sealed(path).get("made_from"))
    except StorageError:  # it is made again
        return ""


def _numbers(run: Run) -> list[Any]:
    """What the answers of a run's models depend on."""
    alphas = {task: found["shares"] for task, found in run["negation"].items()}
    return [run["method"], run["seed"], run["vectors"], run["addition"]["alpha"], alphas]


def _task(
    experiment: Experiment,
    task: str,
    pictures: UInt8[np.ndarray, "k h w 3"],
    shown: Int[np.ndarray, " k"],
    zero_shot: Correct,
    answers: Mapping[str, Sequence[Correct]],
    share: str,
) -> TaskSamples:
    """A task's accuracies by class, and its images without answers."""
    classes = experiment.tasks[task].classes
    limit = experiment.config.evaluation.max_test_images
    test = experiment.tasks[task].splits["test"]
    labels = test.labels[limited_rows(len(test), limit)]
    keys = {"single": "single", "added": "added", "negated": f"negated/{share}"}
    right = {ZERO_SHOT: [zero_shot[task]]} | {
        f"{method}/{edit}": [each[f"{key}/{task}"] for each in seeds]
        for method, seeds in answers.items()
        for edit, key in keys.items()
    }
    return {
        "classes": [name if isinstance(name, str) else name[0] for name in classes],
        "counts": np.bincount(labels, minlength=len(classes)).tolist(),
        "accuracies": {
            model: by_class(np.stack(seeds), labels, len(classes)) for model, seeds in right.items()
        },
        "images": [
            {"picture": picture(image), "label": int(label), "answers": {}}
            for image, label in zip(pictures, shown, strict=True)
        ],
    }


def by_class(
    right: Bool[np.ndarray, "seeds n"], labels: Int[np.ndarray, " n"], classes: int
) -> list[float | None]:
    """Share of each class's images that are classified right, mean over seeds; None: no image."""
    shares = []
    for label in range(classes):
        own = right[:, labels == label]
        shares.append(float(own.mean()) if own.size else None)
    return shares


def picture(image: UInt8[np.ndarray, "h w 3"]) -> str:
    """A small picture as an address that holds it; of more than 48 pixels as a JPEG."""
    small = PIL.Image.fromarray(image)
    small.thumbnail((SIDE, SIDE))
    kind = "png" if max(small.size) <= 48 else "jpeg"
    file = io.BytesIO()
    small.save(file, kind, **({"quality": 80} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _put(
    experiment: Experiment, task: str, images: np.ndarray, labels: np.ndarray
) -> EvaluationSet:
    """A task's few images, for the evaluators."""
    devices = experiment.local.mesh.size
    batch = -(-PICTURES // devices) * devices
    return put_evaluation_set(experiment.heads[task], images, labels, batch, experiment.local)
