"""Types and shapes in annotations are checked while the tests run."""

import os
import shutil
import subprocess
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jaxtyping
import pytest

from tests import shapes

# Every annotated function of the package checks its arguments' shapes and types.
jaxtyping.install_import_hook("orthoreg_jax", f"{shapes.__name__}.check")


# What tests run takes milliseconds, and compiling it takes most of their time. These make less of
# compiling, to a third of its time.
QUICK_TO_COMPILE = ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false")


def known(flag):
    """Whether this XLA has the flag: it ends a process that asks for another one."""
    program = "from jaxlib import xla_client; xla_client.make_cpu_client()"
    environment = os.environ | {"XLA_FLAGS": flag}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True).returncode == 0


# Before the first array is made; processes that tests start inherit it.
os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), *filter(known, QUICK_TO_COMPILE)]
)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Runs of the suite compile the same functions again and again: once is enough."""
    if jax.config.jax_compilation_cache_dir is None:
        folder = tmp_path_factory.mktemp("compiled")
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    # For the processes that tests start.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = jax.config.jax_compilation_cache_dir
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A small config file, its model and data."""
    from tests import small_run  # after the hook above

    folder = tmp_path_factory.mktemp("inputs")
    small_run.write_model(folder)
    small_run.write_tasks(folder)
    config = folder / "small.py"
    config.write_text(small_run.CONFIG.replace("DATA", str(folder)))
    return config


@pytest.fixture(scope="session")
def finished(inputs, tmp_path_factory):
    """A whole small run."""
    from tests import small_run

    workdir = tmp_path_factory.mktemp("runs") / "small"
    assert small_run.orthoreg("run", inputs, workdir) == 0
    return workdir


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MB; mounting one takes rights that not every machine gives."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture(autouse=True)
def strict_promotion(request):
    """Types are not promoted silently where tests hold the mathematics."""
    pure = request.path.parent.name in ("arithmetic", "penalties", "merging")
    with jax.numpy_dtype_promotion("strict" if pure else "standard"):
        yield


@pytest.fixture
def untyped():
    """As for users: without the tests' check of annotated shapes and types."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
