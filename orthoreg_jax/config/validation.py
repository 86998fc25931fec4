"""What values the options of a config may have."""

from __future__ import annotations

import itertools
import math

from ml_collections import ConfigDict

from .options import (
    DTYPES,
    ORTHOREG,
    PLUS,
    PRECISIONS,
    SEARCHES,
    default_config,
    flatten_config,
    split_method,
)
from .value_types import describe_kind, same_kind


def validate(config: ConfigDict) -> None:
    """Checks every value.

    Raises:
      ValueError: all the problems found, each with what is allowed.
    """
    from orthoreg_jax.penalties.orthoreg import FORMS
    from orthoreg_jax.training.modes import MODES, make_mode
    from orthoreg_jax.training.modes.lora import PLACEMENTS
    from orthoreg_jax.training.penalties import PENALTIES

    flat, known = flatten_config(config), flatten_config(default_config())
    problems = [f"{key}: no such option" for key in flat if key not in known]
    problems += [f"{key}: is missing" for key in known if key not in flat]
    # Options of another type first: what follows may count on the type.
    problems += [
        f"{key} is {flat[key]!r}, allowed: {describe_kind(value)}"
        for key, value in known.items()
        if key in flat and not same_kind(flat[key], value)
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
    # A task's files are in a folder of its name, beside these files.
    taken = ("evaluation.json", "correct.safetensors")
    good = not any("/" in name or name.startswith(".") or name in taken for name in flat["tasks"])
    check("tasks", good, f"names without '/' and no leading '.', other than {' and '.join(taken)}")
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
    if flat["penalty.text_tensors"]:
        whole = [mode for mode in MODES if make_mode(mode, default_config()).whole]
        good = any(mode in whole and "orthoreg" in penalties for mode, penalties in methods)
        having = " or ".join(mode + ORTHOREG for mode in whole)
        check("penalty.text_tensors", good, f"False, unless `methods` has {having}")
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
    search = flat["evaluation.alpha_search"]
    check("evaluation.alpha_search", search in SEARCHES, " or ".join(SEARCHES))
    for key in ("evaluation.alphas", "evaluation.relative_lengths"):
        grid = flat[key]
        rising = all(a < b for a, b in itertools.pairwise(grid))
        check(key, len(grid) > 1 and grid[0] == 0 and rising, "two or more numbers rising from 0")
    for key in ("refinements", "per_task_rounds"):
        number(f"evaluation.{key}", 0, whole=True)
    for analogy in flat["evaluation.analogies"]:
        four = analogy.split(":")
        good = len(set(four)) == len(four) == 4 and set(four) <= set(flat["tasks"])
        check("evaluation.analogies", good, "texts a:b:c:d of four different names of `tasks`")
    pairs = flat["evaluation.disentanglement_tasks"]
    good = set(pairs) <= set(flat["tasks"]) and len(set(pairs)) == len(pairs) != 1
    check(
        "evaluation.disentanglement_tasks",
        good,
        "none, or two or more of `tasks`, with which it changes",
    )
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
