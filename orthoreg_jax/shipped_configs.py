"""Configs that come with the package, by name, in a checkout and in an installed package."""

from __future__ import annotations

import os
import pathlib

from .words import did_you_mean

PACKAGE = pathlib.Path(__file__).parent
# In a wheel they are inside the package, in a checkout next to it.
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")


def shipped_configs() -> dict[str, pathlib.Path]:
    """Files of the configs that come with the package, by name."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    return {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.py"))}


def locate_config(source: str | os.PathLike[str]) -> pathlib.Path:
    """The file of a config, given as a path or as the name of one that comes with the package.

    Raises:
      ValueError: it is neither.
    """
    path = pathlib.Path(source)
    if path.suffix == ".py" and os.path.isfile(path):
        return path
    shipped = shipped_configs()
    if str(source) in shipped:
        return shipped[str(source)]
    there = f"; {path.stem!r} comes with the package, by this name" if path.stem in shipped else ""
    meant = "" if there else did_you_mean(path.stem, shipped)
    raise ValueError(
        f"config {str(source)!r}: no such Python file (.py){there}; allowed: a file, or one of "
        f"{', '.join(shipped)}{meant}"
    )
