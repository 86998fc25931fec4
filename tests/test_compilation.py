"""What one run compiled, the next one finds."""

import os
import subprocess
import sys

PROGRAM = """
import sys
import jax
from orthoreg_jax import cli
found = []
jax.monitoring.register_event_listener(
    lambda name, **_: found.append(name) if name.endswith("cache_hits") else None)
assert cli.main(sys.argv[1:]) == 0
print("found", len(found))
"""


def finetune(inputs, workdir, cache):
    # Compiled in full: what takes less than a second is not kept, as a step by the suite's flags.
    own = ("JAX_", "XLA_")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    environment |= {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(cache)}
    command = ["finetune", "--config", str(inputs), "--workdir", str(workdir)]
    command += ["--config.model=embedded"]  # larger than the suite's own
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command, "--config.methods=linearized"],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "Warning" not in done.stderr
    return int(done.stdout.split()[-1])


def test_the_second_run_compiles_nothing_that_takes_long(inputs, tmp_path):
    cache = tmp_path / "cache"
    finetune(inputs, tmp_path / "first", cache)
    stored = {path.name for path in cache.rglob("*-cache")}
    found = finetune(inputs, tmp_path / "second", cache)
    assert any(name.startswith("jit_step") for name in stored)
    assert found >= len(stored)


def test_no_cache_folder_is_no_error(inputs, tmp_path):
    (tmp_path / "file").write_text("")
    assert finetune(inputs, tmp_path / "run", tmp_path / "file") == 0  # nothing looked up
