"""Reads results.json and checks that it is complete, in this format, and correctly typed."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

from orthoreg_jax.storage import StorageError, read_json, read_sealed

from .results import FORMAT, Results

ERRORS_SHOWN = 3  # wrong fields listed in an error


def read_results(folder: pathlib.Path) -> Results:
    """Reads a run folder's results.json.

    Raises:
      StorageError: the folder or file does not exist, was changed, or does not match `Results`.
      ValueError: this version does not read the file's format.
    """
    path = folder / "results.json"
    if not folder.is_dir():
        raise StorageError(f"--workdir {folder}: no such run folder")
    if not path.is_file():
        raise StorageError(f"{path}: no such file; run the stage `evaluate` first")
    found = read_json(path)
    found = found.get("format") if isinstance(found, dict) else None
    if found != FORMAT:
        raise ValueError(
            f"{path}: has format {found!r}, but this version of orthoreg_jax reads format "
            f"{FORMAT}; run the stage `evaluate` again with this version in a new --workdir, or "
            "report with the version that wrote it"
        )
    try:
        results: Any = read_sealed(path)
    except StorageError as error:
        raise StorageError(f"{error}; run the stage `evaluate` again") from error
    if wrong := find_wrong_fields(results):
        more = f", and {len(wrong) - ERRORS_SHOWN} more" if len(wrong) > ERRORS_SHOWN else ""
        shown = "; ".join(wrong[:ERRORS_SHOWN])
        raise StorageError(
            f"{path}: does not match what `evaluate` writes ({shown}{more}); "
            "run the stage `evaluate` again"
        )
    checked: Results = results
    return checked


def find_wrong_fields(results: Any) -> list[str]:
    """Lists the fields that do not match `Results`, one line each."""
    import pydantic

    try:
        _adapter().validate_python(results)
    except pydantic.ValidationError as error:
        return [
            f"{'.'.join(map(str, each['loc']))}: {each['msg'].lower()}"
            for each in error.errors(include_url=False, include_input=False)
        ]
    return []


@functools.cache
def _adapter() -> Any:
    import pydantic

    return pydantic.TypeAdapter(Results)
