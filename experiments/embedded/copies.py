r"""Copies tasks whose images are arrays, to PNG files or to a tensorflow-datasets set.

    python experiments/embedded/copies.py --form folder --out build/copies/folder
    python experiments/embedded/copies.py --form tfds --out build/copies/tfds

The copies have the same pictures, classes and prompts in the same order, so a run on them
(--config.data=build/copies/folder) gives the same results, bit for bit.
"""

from __future__ import annotations

import argparse
import io
import pathlib
from collections.abc import Iterator
from typing import Any

import PIL.Image

from orthoreg_jax.storage import write_json, write_text
from orthoreg_jax.tasks.class_names import first_name
from orthoreg_jax.tasks.split import Split
from orthoreg_jax.tasks.table import read_table
from orthoreg_jax.tasks.task import Task, data_directory, load_tasks


def encoded(split: Split) -> Iterator[tuple[bytes, int]]:
    """Yields every image as PNG, with its label."""
    for row, label in enumerate(split.labels):
        file = io.BytesIO()
        PIL.Image.fromarray(split.images[row]).save(file, "png")
        yield file.getvalue(), int(label)


def as_folder(task: Task, out: pathlib.Path, labels: list[str]) -> dict[str, Any]:
    """Writes TASK/CLASS/SPLIT_ROW.png and TASK/SPLIT.txt; returns the task's tasks.json entry."""
    for split, data in task.splits.items():
        lines = []
        for row, (image, label) in enumerate(encoded(data)):
            path = out / task.name / labels[label] / f"{split}_{row:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image)
            lines.append(path.relative_to(out / task.name).as_posix())
        write_text(out / task.name / f"{split}.txt", "\n".join(lines) + "\n")
    return {"folder": task.name}


def as_set(task: Task, out: pathlib.Path, labels: list[str]) -> dict[str, Any]:
    """Writes a set as array_record files, without TensorFlow; returns its tasks.json entry."""
    import tensorflow_datasets as tfds

    class Copy(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        name = task.name

        def _info(self) -> Any:
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=labels),
                }
            )
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, manager: Any) -> dict[str, Any]:
            del manager
            return {split: self._generate_examples(data) for split, data in task.splits.items()}

        def _generate_examples(self, data: Split) -> Iterator[tuple[int, dict[str, Any]]]:
            for row, (image, label) in enumerate(encoded(data)):
                yield row, {"image": image, "label": label}

    Copy(data_dir=str(out), file_format="array_record").download_and_prepare()
    return {"tfds": task.name, "splits": {split: split for split in task.splits}}


def main() -> None:
    """Copies the tasks and writes tasks.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="embedded", help="as config.data")
    parser.add_argument("--form", required=True, choices=("folder", "tfds"))
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--tasks", nargs="*", help="all but the control and parts of others")
    parser.add_argument("--control", default="concepts", help="the task without a train split")
    options = parser.parse_args()
    table = read_table(options.data, data_directory(options.data))
    whole = [name for name, entry in table.items() if "part_of" not in entry]
    names = options.tasks or [name for name in whole if name != options.control]
    entries = {}
    for name, task in load_tasks(options.data, names, options.control).items():
        labels = [f"{place:03d}" for place in range(len(task.classes))]
        source = (as_folder if options.form == "folder" else as_set)(task, options.out, labels)
        classes = [first_name(each) for each in task.classes]
        entries[name] = {"title": task.title, "classes": classes, "labels": labels,
                         "templates": list(task.templates), **source}  # fmt: skip
        print(f"{name}: {sum(map(len, task.splits.values()))} images", flush=True)
    write_json(options.out / "tasks.json", {"tasks": entries})


if __name__ == "__main__":
    main()
