"""Types and shapes in annotations are checked while the tests run."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jaxtyping
import pytest

from tests import shapes

# Every annotated function of the package checks its arguments' shapes and types.
jaxtyping.install_import_hook("orthoreg_jax", f"{shapes.__name__}.check")


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Runs of the suite compile the same functions again and again: once is enough."""
    folder = tmp_path_factory.mktemp("compiled")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
