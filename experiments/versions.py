"""Tests the package's core with different versions of Python and JAX, in separate environments.

    python experiments/versions.py          # or: make versions; --only 3.12 does one of them

Each Python on this machine gets the newest versions available to it; the oldest Python also gets
the lowest versions that pyproject.toml allows. Environments and the logs of their tests stay in
.venv-versions; earlier results stay in experiments/results/versions.json, one row for each. Needs
uv, which `make setup` installs, and a package index.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time
from typing import Any

from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import read_json, write_json, write_text

ROOT = pathlib.Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "results"
FOLDER = ROOT / ".venv-versions"
PYTHONS = ("3.11", "3.12", "3.13")
NEWEST, LOWEST = "newest", "lowest"
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")
# Formulas, the train step, files, CLIP against numbers stored from another program, a whole run.
CORE = (
    *("tests/arithmetic", "tests/penalties", "tests/merging/test_merging.py"),
    *("tests/training/test_step.py", "tests/training/test_saved_states.py"),
    *("tests/test_storage.py", "tests/clip/test_checkpoint.py", "tests/clip/test_parity.py"),
    *("tests/clip/test_processor.py", "tests/test_run.py::test_run_folder_is_complete"),
    "tests/test_run.py::test_every_mode_runs",
)
VERSIONS = (
    "import platform; from importlib.metadata import version; "
    "print(platform.python_version(), *map(version, "
)
IMPORTS = """
import subprocess, sys, time
both = ("import jax, optax",
        "from orthoreg_jax import add_orthogonality_penalty, task_vector, save_tree, ties")
code = "import time; began = time.perf_counter(); {}; print(time.perf_counter() - began)"
took = [[float(subprocess.run([sys.executable, "-c", code.format(each)], check=True,
                              capture_output=True, text=True).stdout) for each in both]
        for _ in range(8)][1:]
print(sorted(ours / least for least, ours in took)[len(took) // 2])
"""


def main() -> None:
    """Runs the requested tests and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="PYTHON", help="3.11, 3.12, 3.13; all")
    parser.add_argument("--versions", default="", choices=("", NEWEST, LOWEST), help="both")
    arguments = parser.parse_args()
    file = RESULTS / "versions.json"
    rows: dict[str, Any] = read_json(file) if file.exists() else {}
    for minor in PYTHONS:
        for kind in (NEWEST, LOWEST) if minor == PYTHONS[0] else (NEWEST,):
            if arguments.only in ("", minor) and arguments.versions in ("", kind):
                python = find_python(minor)
                if python is None:
                    print(f"Python {minor}: not on this machine, left out", flush=True)
                    continue
                rows[f"{minor} {kind}"] = trial(minor, kind, python)
                write_json(file, rows)
                write_text(RESULTS / "versions.md", page(rows))
    print(page(rows))
    if failed := [name for name, row in rows.items() if row["failed"]]:
        raise SystemExit(f"tests fail with {', '.join(failed)}; see the logs in {FOLDER}")


def find_python(minor: str) -> str | None:
    """A working interpreter of this version, from the path or pyenv."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    found = [shutil.which(f"python{minor}"), *sorted(pyenv.glob(f"versions/{minor}.*/bin/python"))]
    for each in map(str, filter(None, found)):
        said = subprocess.run([each, "--version"], capture_output=True, text=True)
        if said.returncode == 0 and said.stdout.startswith(f"Python {minor}."):
            return each
    return None


def trial(minor: str, kind: str, python: str) -> dict[str, Any]:
    """Creates the environment and runs the tests in it; returns a row of the table."""
    place = FOLDER / f"{minor}-{kind}"
    print(f"Python {minor}, {kind} versions: {place}", flush=True)
    own = str(place / "bin" / "python")
    uv("venv", "--clear", "--python", python, str(place))
    limits = []
    if kind == LOWEST:
        # Lowest versions only of our own requirements: development tools are as new as those allow.
        limits = ["--constraint", str(place / "lowest.txt")]
        compiled = ("pyproject.toml", "--extra", "experiments", "--resolution", "lowest-direct")
        uv("pip", "compile", *compiled, "--python", own, "--output-file", limits[1])
    uv("pip", "install", "--python", own, *limits, "--editable", ".[dev]")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    ratio = subprocess.run(
        [own, "-c", IMPORTS], env=environment, cwd=place, check=True, capture_output=True, text=True
    )
    began = time.monotonic()
    log = FOLDER / f"{minor}-{kind}.log"
    with open(log, "w") as stream:
        # Disables a plugin that some packages bring, because it warns about pytest's future.
        command = [own, "-m", "pytest", "-p", "no:anyio", "-rf", *CORE]
        subprocess.run(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream)
    seconds = time.monotonic() - began
    last = log.read_text().strip().splitlines()[-1]
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|error)", last)}
    said = subprocess.run(
        [own, "-c", f"{VERSIONS}{PACKAGES}))"], check=True, capture_output=True, text=True
    ).stdout.split()
    return {
        "python": said[0],
        "versions": dict(zip(PACKAGES, said[1:], strict=True)),
        "passed": counts.get("passed", 0),
        # A log without counts is from a run that did not finish.
        "failed": counts.get("failed", 0) + counts.get("error", 0) + (not counts),
        "seconds": seconds,
        "import_ratio": float(ratio.stdout),
    }


def uv(*command: str) -> None:
    """Runs uv from this environment."""
    program = pathlib.Path(sys.executable).parent / "uv"
    subprocess.run([program, *command, "--quiet", "--system-certs"], cwd=ROOT, check=True)


def page(rows: dict[str, Any]) -> str:
    """Page with the table: one row for each environment."""
    header = ["Python", "versions", *PACKAGES, "passed", "failed", "import"]
    lines = [
        [
            row["python"],
            name.split()[1],
            *(row["versions"][package] for package in PACKAGES),
            *(str(row["passed"]), str(row["failed"]), f"{row['import_ratio']:.2f}"),
        ]
        for name, row in sorted(rows.items())
    ]
    return "\n".join(
        [
            "# Versions\n",
            "    make versions\n",
            "The suite's core (" + ", ".join(f"`{name}`" for name in CORE) + "), warnings being "
            f"errors, on {platform.system()} {platform.machine()}, CPU. *newest*: the newest "
            "versions that this Python can have; *lowest*: the lowest ones that `pyproject.toml` "
            "allows. *import*: time of importing penalty, task vectors and merging, divided by "
            "that of `import jax, optax`; the median of seven pairs.\n",
            markdown_rows(header, lines) + "\n",
        ]
    )


if __name__ == "__main__":
    main()
