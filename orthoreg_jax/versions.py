"""Versions of the packages in use, for provenance and `--version`."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("orthoreg-jax", "jax", "jaxlib", "flax", "optax", "transformers", "numpy")


def version(package: str) -> str:
    """Of an installed package; "checkout" for one that is imported from its source tree."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "checkout"


def versions_text() -> str:
    """What `orthoreg --version` prints: a package in a line, those first that change numbers."""
    names = (*PACKAGES, "orbax-checkpoint")
    return "\n".join([*(f"{name} {version(name)}" for name in names),
                      f"Python {platform.python_version()}"])  # fmt: skip
