"""Published sets of fine-tuned models: rows of one table.

Reference: A. Tang et al., "FusionBench: A Comprehensive Benchmark of Deep Model Fusion" (arXiv
2406.03280), whose models are image towers of OpenAI's CLIPs, in safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Experts(NamedTuple):
    """One set of fine-tuned models.

    Attributes:
      base: the model from which all were fine-tuned; see `load_checkpoint`.
      models: our name of the task -> name on the hub.
    """

    base: str
    models: Mapping[str, str]


# Our names of tasks -> FusionBench's. Its EMNIST expert knows letters, our task the digits.
_FUSIONBENCH = {
    "cars": "stanford-cars", "cifar10": "cifar10", "cifar100": "cifar100", "dtd": "dtd",
    "eurosat": "eurosat", "fashion_mnist": "fashion_mnist", "fer2013": "fer2013",
    "flowers102": "oxford_flowers102", "food101": "food101", "gtsrb": "gtsrb", "kmnist": "kmnist",
    "mnist": "mnist", "pcam": "pcam", "pets": "oxford-iiit-pet", "rendered_sst2": "rendered-sst2",
    "resisc45": "resisc45", "stl10": "stl10", "sun397": "sun397", "svhn": "svhn",
}  # fmt: skip
EXPERTS = {
    f"fusionbench/{base}": Experts(
        base, {ours: f"tanganke/{stem}_{theirs}" for ours, theirs in _FUSIONBENCH.items()}
    )
    for base, stem in (
        ("ViT-B/32", "clip-vit-base-patch32"),
        ("ViT-B/16", "clip-vit-base-patch16"),
        ("ViT-L/14", "clip-vit-large-patch14"),
    )
}


def find_experts(name: str, tasks: Sequence[str]) -> tuple[str, list[str]]:
    """The base of a set, and its models of some tasks, in the order of the tasks.

    Args:
      name: e.g. "fusionbench/ViT-B/32".
      tasks: our names of the tasks.

    Raises:
      ValueError: the set does not exist, or has no model for one of the tasks.
    """
    if name not in EXPERTS:
        raise ValueError(f"--experts {name}: allowed are {', '.join(EXPERTS)}")
    found = EXPERTS[name]
    unknown = [task for task in tasks if task not in found.models]
    if unknown or not tasks:
        raise ValueError(
            f"--tasks {','.join(tasks) or 'none'}: {name} has models of {', '.join(found.models)}"
        )
    return found.base, [found.models[task] for task in tasks]
