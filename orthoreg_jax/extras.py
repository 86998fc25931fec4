"""What the package can do without the extra [experiments], and what it says of the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

# What `[experiments]` of pyproject.toml installs, by the names that are imported.
EXPERIMENTS = (
    "absl",
    "flax",
    "grain",
    "huggingface_hub",
    "matplotlib",
    "ml_collections",
    "orbax",
    "PIL",
    "pydantic",
    "tensorflow_datasets",
    "tqdm",
    "transformers",
    "typing_extensions",
)


def install(extra: str) -> str:
    """The command that installs the package with an extra."""
    return f"pip install 'orthoreg-jax[{extra}]'"


class MissingExtraError(ImportError):
    """A package of an extra is not installed; the message says which extra brings it."""


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Says which extra brings a package that `what`, which the block does, does not find.

    Raises:
      MissingExtraError: a package of the extra [experiments] is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXPERIMENTS:
            raise
        raise MissingExtraError(
            f"{what} needs {package}, which is not installed: this needs {install('experiments')}",
            name=package,
        ) from error
