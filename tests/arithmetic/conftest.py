import jax
import pytest


@pytest.fixture(autouse=True)
def strict_promotion():
    """Types are not promoted silently."""
    with jax.numpy_dtype_promotion("strict"):
        yield
