"""Types and shapes in annotations are checked while the tests run."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jaxtyping

from tests import shapes

# Every annotated function of the package checks its arguments' shapes and types.
jaxtyping.install_import_hook("orthoreg_jax", f"{shapes.__name__}.check")
