"""Every option of an experiment, with its default; files in configs/ change what they need."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

PLUS = "+"
ORTHOREG = PLUS + "orthoreg"
DTYPES = ("float32", "bfloat16")
PRECISIONS = ("highest", "high", "default")


def default_config() -> ConfigDict:
    """The default of every option. There are no others: unknown keys are errors.

    Examples:
      >>> config = oj.default_config()
      >>> config.tasks, config.penalty.strength = ("emoji", "flags"), 0.1
    """
    from .training.modes import MODES
    from .training.penalties import PENALTIES

    config = ConfigDict()
    # "embedded", a Hugging Face CLIP directory, a preset such as "ViT-B/32", or a hub name.
    config.model = "embedded"
    # "embedded", or a directory of the same layout: tasks.json and one .npz per task.
    config.data = "embedded"
    # Tasks to fine-tune, add and negate, by name.
    config.tasks = ("mnist", "fashion_mnist")
    # Task whose accuracy negation must keep; never trained on.
    config.control = "concepts"
    # Ways to fine-tune: a mode, with any of "+orthoreg", "+taujp" and "+tak" behind it, in this
    # order, for penalties. Modes: full, linearized, attention, lora.
    config.methods = ("full", "full+orthoreg")
    # Each seed fixes a run's batches and augmentation.
    config.seeds = (0,)

    # Precision of float32 matrix products, in all stages: "highest", or "default", which is faster
    # on TPUs and recent GPUs because they round the factors. The penalty has its own.
    config.matmul_precision = "highest"

    config.penalty = penalty = ConfigDict()
    # lambda of OrthoReg, used by the methods with "+orthoreg"; so are `form` and `precision`.
    penalty.strength = 10.0
    # "released" (norm, Gram of the smaller side) or "paper" (squared norm, Gram over columns).
    penalty.form = "released"
    # Of its matrix products. "default" rounds updates to bfloat16 on TPUs (sums stay float32): the
    # gradient changes by 2e-3 of its norm, see experiments/results/penalty_ViT-B32.md.
    penalty.precision = "highest"

    # E || J tau ||^2 on images of the other tasks of `tasks`, one of them at each step.
    penalty.taujp = ConfigDict()
    # lambda, used by the methods with "+taujp".
    penalty.taujp.strength = 1.0
    # Images at a step; they are not among those of training.batch_size.
    penalty.taujp.batch_size = 16

    # The same by Kronecker factors of the other tasks, made before training: no image is seen.
    penalty.tak = ConfigDict()
    # lambda, used by the methods with "+tak".
    penalty.tak.strength = 1.0
    # Training images of each other task for its factors, chosen by a fixed seed; 0: all.
    penalty.tak.images = 256

    # What one method uses in place of training.learning_rate and its penalty's strength; 0.0: the
    # same. A method of several penalties has the mode's learning rate, and of each penalty the
    # strength that it has alone.
    config.per_method = ConfigDict()
    for mode in MODES:
        config.per_method[mode] = ConfigDict({"learning_rate": 0.0})
        for name in PENALTIES:
            own = {"learning_rate": 0.0, "strength": 0.0}
            config.per_method[mode + PLUS + name] = ConfigDict(own)

    # Adapters of the mode "lora": dW = (alpha / rank) B A.
    config.lora = lora = ConfigDict()
    lora.rank = 8
    lora.alpha = 8.0
    # Kernels with an adapter: "qkvo" (attention's in- and output), "qkv", "qv", "mlp" or "all".
    lora.placement = "qkvo"

    config.training = training = ConfigDict()
    # Optimiser steps for each task, if `epochs` is 0.
    training.steps = 100
    # Passes over each task's training images; -1.0: as many as the recipe of the field has for the
    # task (`tasks/catalogue.py`), which then must be one of the field's.
    training.epochs = 0.0
    training.batch_size = 128
    # Peak of the cosine schedule, which ends at 0.
    training.learning_rate = 1e-5
    # Linear warm-up, in steps.
    training.warmup_steps = 10
    # Of AdamW, on every trained leaf.
    training.weight_decay = 0.1
    # Largest global norm of the gradient.
    training.clip_norm = 1.0
    # Smallest share of an image's area that a random resized crop keeps; 1.0: no augmentation.
    training.crop_scale = 0.9
    # Type of activations: "float32" or "bfloat16". Parameters and penalty stay float32.
    training.dtype = "float32"
    # Parts of a batch that are computed one after the other, their gradients averaged: less memory.
    training.accumulate = 1
    # Devices among which weights and optimiser state are split; 1: each device has all of them.
    training.fsdp = 1
    # Recompute activations in the backward pass: less memory, more time.
    training.remat = False
    # Steps between two lines of metrics.jsonl.
    training.log_every = 10
    # Write the same numbers as event files for TensorBoard, too; takes the extra [tensorboard].
    training.tensorboard = False
    # Steps between two saved states, from which an interrupted task goes on; 0: none.
    training.checkpoint_every = 0
    # Saved states to keep, the newest ones: if one is damaged, the one before it serves.
    training.keep_checkpoints = 2

    config.evaluation = evaluation = ConfigDict()
    evaluation.batch_size = 256
    # Largest size of all validation and test images that are kept on the device; more of them stay
    # in the host's memory and are sent batch by batch.
    evaluation.device_megabytes = 2000
    # Grid of alpha for addition and negation, rising from 0.
    evaluation.alphas = (
        *(0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7),
        *(0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0),
    )
    # Shares of the zero-shot control accuracy that negation has to keep.
    evaluation.control_shares = (0.95, 0.9, 0.8)
    # Images used of each task's validation and test split, chosen by a fixed seed; 0: all.
    evaluation.max_val_images = 0
    evaluation.max_test_images = 0
    # Task analogies "a:b:c:d" of four of `tasks`, as a is to b, so is c to d: how well d is done by
    # tau_c + (tau_b - tau_a), which saw no image of d.
    evaluation.analogies = ()
    # Tasks of which every pair's disentanglement error is measured, over the grid of these alphas
    # for both, on at most so many test images of each task (0: all). Empty: none.
    evaluation.disentanglement_tasks = ()
    evaluation.disentanglement_alphas = (
        *(-3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
    )
    evaluation.max_disentanglement_images = 256
    # Test images of each task on which the sensitivity to each feature and the products J tau are
    # measured; 0: they are not.
    evaluation.feature_images = 0
    return config.lock()


def split_method(method: str) -> tuple[str, tuple[str, ...]]:
    """The mode of a method, and its penalties.

    Examples:
      >>> split_method("linearized+orthoreg+tak")
      ('linearized', ('orthoreg', 'tak'))
    """
    mode, *penalties = method.split(PLUS)
    return mode, tuple(penalties)


def load_config(path: str | pathlib.Path, overrides: Sequence[str] = ()) -> ConfigDict:
    """The config of a file's `get_config()`, changed by overrides, checked.

    Args:
      path: a Python file whose `get_config()` returns a ConfigDict, made from `default_config`.
      overrides: texts like "training.steps=200" or "tasks=mnist,vehicles".

    Raises:
      ValueError: no such file, no `get_config`, an unknown key or a bad value; all are named.
    """
    path = pathlib.Path(path)
    if not path.is_file() or path.suffix != ".py":
        raise ValueError(
            f"config {str(path)!r}: no such Python file (.py); configs/ holds those that exist"
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = module.get_config()
    except Exception as error:  # whatever a user's own file may raise
        reason = error.args[0] if isinstance(error, KeyError) else error
        raise ValueError(f"config {str(path)!r}: {type(error).__name__}: {reason}") from error
    if not isinstance(config, ConfigDict):
        raise ValueError(
            f"config {str(path)!r}: get_config() returned {type(config).__name__}, expected the "
            "ConfigDict that it changed (is its last line `return config`?)"
        )
    override(config, overrides)
    validate(config)
    return config


def override(config: ConfigDict, overrides: Sequence[str]) -> None:
    """Applies texts like "training.steps=200" to a config.

    Raises:
      ValueError: an unknown key, or a value of another type than the option's.
    """
    for text in overrides:
        key, equals, value = text.partition("=")
        flat = flatten_config(config)
        if not equals or key not in flat:
            import difflib

            near = difflib.get_close_matches(key, flat, 1)
            raise ValueError(
                f"--config.{text}: no such option{f'; did you mean {near[0]}?' if near else ''}; "
                f"the options are {', '.join(flat)}"
            )
        *parents, name = key.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[name] = _parse(key, value, flat[key])


def _parse(key: str, text: str, old: Any) -> Any:
    """Reads a value as the type of the one it replaces."""
    kind = type(old)
    try:
        if kind is str:
            return text
        if kind is tuple:
            return _parse_tuple(text, type(_item(old)))
        value = ast.literal_eval(text.capitalize() if kind is bool else text)
        if type(value) is kind or (kind is float and type(value) is int):
            return kind(value)
    except (ValueError, SyntaxError):
        pass
    raise ValueError(
        f"--config.{key}={text}: not a value for this option; allowed: {_kind(old)}, for example "
        f"{','.join(map(str, old)) if kind is tuple else old}"
    )


def _parse_tuple(text: str, item: type) -> tuple[Any, ...]:
    parts = [part.strip(" '\"") for part in text.strip("()[] ").split(",")]
    return tuple(item(part) for part in parts if part)


def _item(default: tuple[Any, ...]) -> Any:
    """An entry of a default that is a tuple; one that is empty holds names."""
    return default[0] if default else ""


def _same_kind(value: Any, default: Any) -> bool:
    """Whether a value has the type of an option's default; an int may stand for a float."""
    if isinstance(default, tuple):
        return isinstance(value, tuple | list) and all(_same_kind(v, _item(default)) for v in value)
    if isinstance(default, float):
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is type(default)


def _kind(default: Any) -> str:
    if isinstance(default, tuple):
        return f"several of: {_kind(_item(default))}"
    return {int: "a whole number", float: "a finite number", str: "a text", bool: "True or False"}[
        type(default)
    ]


def flatten_config(config: ConfigDict) -> dict[str, Any]:
    """Options by their dotted name."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= {f"{key}.{name}": item for name, item in flatten_config(value).items()}
        else:
            flat[key] = value
    return flat


def validate(config: ConfigDict) -> None:
    """Checks every value.

    Raises:
      ValueError: all the problems found, each with what is allowed.
    """
    from .arithmetic.penalty import FORMS
    from .training.modes import MODES
    from .training.modes.lora import PLACEMENTS
    from .training.penalties import PENALTIES

    flat, known = flatten_config(config), flatten_config(default_config())
    problems = [f"{key}: no such option" for key in flat if key not in known]
    problems += [f"{key}: is missing" for key in known if key not in flat]
    # Options of another type first: what follows may count on the type.
    problems += [
        f"{key} is {flat[key]!r}, allowed: {_kind(value)}"
        for key, value in known.items()
        if key in flat and not _same_kind(flat[key], value)
    ]
    if problems:
        raise ValueError("config: " + "; ".join(problems))

    def check(key: str, good: bool, allowed: str) -> None:
        if not good:
            problems.append(f"{key} is {flat[key]!r}, allowed: {allowed}")

    def number(key: str, low: float, high: float = math.inf, whole: bool = False) -> None:
        value = flat[key]
        good = low <= value <= high
        kind = "a whole number" if whole else "a number"
        limit = f"from {low} up" if high == math.inf else f"from {low} to {high}"
        check(key, good, f"{kind} {limit}")

    def names(key: str, least: int) -> None:
        value = flat[key]
        good = all(value) and len(value) >= least
        check(key, good and len(set(value)) == len(value), f"{least} or more names, none twice")

    for key in ("model", "data", "control"):
        check(key, flat[key] != "", "a name or a directory")
    names("tasks", 1)
    check("control", flat["control"] not in flat["tasks"], "a task that is not fine-tuned")
    names("methods", 1)
    methods = [split_method(method) for method in flat["methods"]]
    ordered = [(mode, tuple(p for p in PENALTIES if p in penalties)) for mode, penalties in methods]
    check(
        "methods",
        methods == ordered and all(mode in MODES for mode, _ in methods),
        f"{', '.join(MODES)}, each with any of {', '.join(PLUS + name for name in PENALTIES)} "
        "behind it, in this order",
    )
    seeds = flat["seeds"]
    good = all(0 <= seed < 2**32 for seed in seeds) and 0 < len(set(seeds)) == len(seeds)
    check("seeds", good, "whole numbers from 0 to 2**32 - 1, none twice")
    for key in known:
        if key.startswith("per_method."):
            number(key, 0)
    for name, row in PENALTIES.items():
        key = f"{row.options}.strength"
        number(key, 0)
        if any(name in penalties for _, penalties in methods):
            check(key, flat[key] > 0, f"more than 0 with {PLUS}{name}")
            good = not row.others or len(flat["tasks"]) > 1
            check("tasks", good, f"two or more with {PLUS}{name}, which looks at other tasks")
    number("penalty.taujp.batch_size", 1, whole=True)
    number("penalty.tak.images", 0, whole=True)
    check("penalty.form", flat["penalty.form"] in FORMS, " or ".join(FORMS))
    number("lora.rank", 1, whole=True)
    number("lora.alpha", 1e-12)
    check("lora.placement", flat["lora.placement"] in PLACEMENTS, " or ".join(PLACEMENTS))
    for key in ("steps", "batch_size", "accumulate", "fsdp", "keep_checkpoints", "log_every"):
        number(f"training.{key}", 1, whole=True)
    check(
        "training.epochs",
        flat["training.epochs"] >= 0 or flat["training.epochs"] == -1,
        "a number from 0 up, or -1 for the field's",
    )
    number("training.warmup_steps", 0, whole=True)
    if flat["training.epochs"] == 0:
        check(
            "training.warmup_steps",
            flat["training.warmup_steps"] < flat["training.steps"],
            f"a whole number from 0 up, below training.steps, which is {flat['training.steps']}",
        )
    batch, parts = flat["training.batch_size"], max(1, flat["training.accumulate"])
    check("training.accumulate", batch % parts == 0, f"a divisor of training.batch_size, {batch}")
    number("training.checkpoint_every", 0, whole=True)
    for key in ("learning_rate", "weight_decay"):
        number(f"training.{key}", 0)
    number("training.clip_norm", 1e-12)
    number("training.crop_scale", 0.01, 1)
    for name in ("matmul_precision", "penalty.precision"):
        check(name, flat[name] in PRECISIONS, " or ".join(PRECISIONS))
    check("training.dtype", flat["training.dtype"] in DTYPES, " or ".join(DTYPES))
    number("evaluation.batch_size", 1, whole=True)
    for key in ("max_val_images", "max_test_images", "device_megabytes"):
        number(f"evaluation.{key}", 0, whole=True)
    for key in ("max_disentanglement_images", "feature_images"):
        number(f"evaluation.{key}", 0, whole=True)
    alphas = flat["evaluation.alphas"]
    rising = all(a < b for a, b in zip(alphas, alphas[1:], strict=False))
    good = len(alphas) > 1 and alphas[0] == 0 and rising
    check("evaluation.alphas", good, "two or more numbers rising from 0")
    for analogy in flat["evaluation.analogies"]:
        four = analogy.split(":")
        good = len(set(four)) == len(four) == 4 and set(four) <= set(flat["tasks"])
        check("evaluation.analogies", good, "texts a:b:c:d of four different names of `tasks`")
    pairs = flat["evaluation.disentanglement_tasks"]
    good = set(pairs) <= set(flat["tasks"]) and len(set(pairs)) == len(pairs) != 1
    check("evaluation.disentanglement_tasks", good, "none, or two or more of `tasks`")
    grid = flat["evaluation.disentanglement_alphas"]
    rising = all(a < b for a, b in itertools.pairwise(grid))
    check("evaluation.disentanglement_alphas", rising and 0 in grid, "rising numbers, 0 among them")
    good = flat["evaluation.feature_images"] == 0 or len(flat["tasks"]) > 1
    check("evaluation.feature_images", good, "0 with a single task: overlap takes two")
    shares = flat["evaluation.control_shares"]
    good = len(shares) > 0 and all(0 < share <= 1 for share in shares)
    check("evaluation.control_shares", good, "numbers above 0, up to 1")
    if problems:
        raise ValueError("config: " + "; ".join(problems))
