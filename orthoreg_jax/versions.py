"""Versions of what is at work, for provenance and `--version`."""

from __future__ import annotations

from importlib import metadata

PACKAGES = ("orthoreg-jax", "jax", "jaxlib", "flax", "optax", "transformers", "numpy")


def version(package: str) -> str:
    """Of an installed package; "checkout" for one that is imported from its source tree."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "checkout"
