"""The config of a run on models that were fine-tuned elsewhere."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from .following import follow_tasks
from .loading import load_config, override
from .options import GIVEN, default_config
from .validation import check_types, validate

# Everything that the report can show, at a size for a first look; a config or overrides change it.
FIRST_LOOK_ALPHAS = (-2.0, -1.0, 0.0, 1.0, 2.0)
FIRST_LOOK_IMAGES = 128
FEATURE_IMAGES = 16


def with_given(
    file: str | pathlib.Path | None,
    models: Sequence[str],
    base: str,
    data: str,
    control: str,
    overrides: Sequence[str] = (),
) -> tuple[ConfigDict, str]:
    """A config whose one method is the given models, and what its file measures but it cannot.

    Args:
      file: as of `load_config`; None: the defaults, with every pair of tasks measured for
        disentanglement, and features.
      models: "TASK=MODEL"; these are the tasks.
      base: the CLIP that they were fine-tuned from; empty: the config's.
      data: where the images are; empty: the config's.
      control: the control task; empty: the config's, without a file "imagenet" on other data than
        the embedded.
      overrides: as of `load_config`; they are applied last.

    Raises:
      ValueError: as `load_config`, or no base.
    """
    named = [entry.partition("=") for entry in models]
    if wrong := [entry for entry in models if not all(entry.partition("="))]:
        raise ValueError(f"--models {wrong[0]}: write TASK=MODEL, e.g. mnist=path/to/model")
    if file is None and not base:
        raise ValueError("--base: give the CLIP that the models were fine-tuned from")
    config = default_config() if file is None else load_config(file)
    config.methods, config.given = (GIVEN,), tuple(models)
    config.tasks = tuple(task for task, _, _ in named)
    config.model, config.data = base or config.model, data or config.data
    if file is None:
        evaluation = config.evaluation
        config.control = config.control if config.data == "embedded" else "imagenet"
        if len(named) > 1:
            evaluation.disentanglement_tasks = config.tasks
            evaluation.feature_images = FEATURE_IMAGES
        evaluation.disentanglement_alphas = FIRST_LOOK_ALPHAS
        evaluation.max_disentanglement_images = FIRST_LOOK_IMAGES
    config.control = control or config.control
    override(config, overrides)
    check_types(config)
    note = follow_tasks(config, {"given", *(text.partition("=")[0] for text in overrides)})
    validate(config)
    return config, note
