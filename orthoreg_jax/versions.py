"""Versions of the packages in use, for provenance and `--version`."""

from __future__ import annotations

import platform
from importlib import metadata

PACKAGES = ("orthoreg-jax", "jax", "jaxlib", "flax", "optax", "transformers", "numpy")


def version(package: str) -> str:
    """Version of an installed package; "checkout" if it is imported from its source tree."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "checkout"


def versions_text() -> str:
    """Output of `orthoreg --version`: one package a line, first those that affect numbers."""
    names = (*PACKAGES, "orbax-checkpoint")
    return "\n".join([*(f"{name} {version(name)}" for name in names),
                      f"Python {platform.python_version()}"])  # fmt: skip
