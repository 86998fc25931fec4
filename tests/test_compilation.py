"""What one run compiled, the next one finds."""

import os
import subprocess
import sys

PROGRAM = """
import sys
import jax
from orthoreg_jax import cli
compiled = []
jax.monitoring.register_event_listener(
    lambda name, **_: compiled.append(name) if name.endswith("cache_misses") else None)
assert cli.main(sys.argv[1:]) == 0
print("compiled", len(compiled))
"""


def finetune(inputs, workdir, cache):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    environment |= {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(cache)}
    # The embedded model, as a step of the suite's own compiles too quickly to be kept.
    command = ["finetune", "--config", str(inputs), "--workdir", str(workdir)]
    command += ["--config.model=embedded"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command, "--config.methods=lora"],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "Warning" not in done.stderr
    return int(done.stdout.split()[-1])


def test_the_second_run_compiles_nothing_that_takes_long(inputs, tmp_path):
    cache = tmp_path / "cache"
    first = finetune(inputs, tmp_path / "first", cache)
    stored = {path.name for path in cache.rglob("*-cache")}
    second = finetune(inputs, tmp_path / "second", cache)
    assert any(name.startswith("jit_step") for name in stored)
    # What is quicker to compile than to look up is not kept.
    assert second <= first - len(stored)


def test_no_cache_folder_is_no_error(inputs, tmp_path):
    (tmp_path / "file").write_text("")
    assert finetune(inputs, tmp_path / "run", tmp_path / "file") == 0  # nothing looked up
