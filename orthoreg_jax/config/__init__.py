"""The config of an experiment: its options, how it is read, and the values it allows."""

from .loading import load_config, override
from .options import (
    DTYPES,
    GIVEN,
    ORTHOREG,
    PLUS,
    PRECISIONS,
    SEARCHES,
    default_config,
    flatten_config,
    split_method,
)
from .validation import validate

__all__ = [
    "DTYPES",
    "GIVEN",
    "ORTHOREG",
    "PLUS",
    "PRECISIONS",
    "SEARCHES",
    "default_config",
    "flatten_config",
    "load_config",
    "override",
    "split_method",
    "validate",
]
