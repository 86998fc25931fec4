"""The extra [experiments]: what needs it, and the message if it is not installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

# Packages that `[experiments]` in pyproject.toml installs, by their import names.
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
    "transformers",
    "typing_extensions",
)


def install(extra: str) -> str:
    """The command that installs the package with an extra."""
    return f"pip install 'orthoreg-jax[{extra}]'"


class MissingExtraError(ImportError):
    """A package of an extra is not installed; the message says which extra installs it."""


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Explains a missing package in the block, which does `what`: the error names its extra.

    Raises:
      MissingExtraError: a package of the extra [experiments] is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = error.name or ""
        package, dot, _ = module.partition(".")
        if package not in EXPERIMENTS:
            raise
        state = f"the installed {package} does not have" if dot else "is not installed"
        raise MissingExtraError(
            f"{what} needs {module}, which {state}: this needs {install('experiments')}",
            name=module,
        ) from error
