"""The package without its extra, in an environment of its own: what it can do, and what it says."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest

import orthoreg_jax
from orthoreg_jax import cli
from orthoreg_jax.extras import EXPERIMENTS, MissingExtraError, explained, install

from .test_readme import code_blocks
from .test_rooms import NAMES, imported

ROOT = pathlib.Path(__file__).parents[1]
# Rooms that are the core: see `dependencies` in pyproject.toml.
CORE = re.compile(r"(arithmetic|merging|trees|penalties(?!\.curvature))\b")

# The version, and what is imported for the rest of the package until that is asked for.
VERSION = """
import sys
import orthoreg_jax
assert not {"jax", "numpy", "importlib.metadata"} & set(sys.modules)
print(orthoreg_jax.__version__)
"""

# Names and what is said of them; other packages than those of `import jax, optax`.
PROGRAM = """
import json, sys
import jax, optax
before = {name.partition(".")[0] for name in sys.modules}
import orthoreg_jax as oj
said = {}
for name in oj.__all__:
    try:
        getattr(oj, name)
    except ImportError as error:
        said[name] = str(error)
imported = {name.partition(".")[0] for name in sys.modules} - before
try:
    oj.load_preprocessing("nowhere", None)  # imports at its call alone
except ImportError as error:
    said["load_preprocessing"] = str(error)
print(json.dumps([said, sorted(imported - sys.stdlib_module_names)]))
"""


def run(*command, folder, **options):
    """In another folder than the checkout, and without its path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True,
        **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """The programs' folder of an environment that holds the core alone, from its wheel."""
    uv = shutil.which("uv", path=os.pathsep.join([str(pathlib.Path(sys.executable).parent),
                                                  os.environ.get("PATH", "")]))  # fmt: skip
    if uv is None:
        pytest.skip("no uv, which `make test` installs")
    folder = tmp_path_factory.mktemp("core")
    run(
        uv,
        "venv",
        "--quiet",
        "--python",
        sys.executable,
        folder / "venv",
        folder=folder,
        check=True,
    )
    python = folder / "venv" / "bin" / "python"
    add = (uv, "pip", "install", "--quiet", "--system-certs", "--python", python)
    if (tried := run(*add, "lazy_loader", folder=folder)).returncode:
        pytest.skip(f"no package index: {tried.stderr[-200:]}")
    run(*add, ROOT, folder=folder, check=True)
    return python.parent


@pytest.fixture(scope="module")
def said(core, tmp_path_factory):
    done = run(core / "python", "-c", PROGRAM, folder=tmp_path_factory.mktemp("names"), check=True)
    return json.loads(done.stdout)


def test_the_version_needs_the_core_alone(core, tmp_path):
    done = run(core / "python", "-c", VERSION, folder=tmp_path)
    (project,) = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert done.stdout.strip() == project, done.stderr


def test_the_readmes_loop_needs_the_core_alone(core, tmp_path):
    block = code_blocks((ROOT / "README.md").read_text())[0]
    done = run(core / "python", "-W", "error", "-c", block, folder=tmp_path, check=True)
    assert re.fullmatch(r"loss 0\.000, penalty 0\.0\d\d\n", done.stdout)


def test_names_are_there_or_say_what_they_need(said):
    refused, _ = said
    stub = (ROOT / "orthoreg_jax" / "__init__.pyi").read_text()
    lines = re.findall(r"^from \.(\S+) import (\w+) as", stub, re.M)
    rooms = {name: room for room, name in lines}
    assert set(rooms) == set(orthoreg_jax.__all__)
    assert not [name for name in refused if CORE.match(rooms[name])]
    assert {"load_checkpoint", "load_tasks", "run_experiment", "load_preprocessing"} <= set(refused)
    for name, message in refused.items():
        assert (
            message.startswith(f"orthoreg_jax.{name} needs ") and install("experiments") in message
        )


def test_importing_all_of_the_core_imports_little(said):
    """So that it takes as long as `import jax, optax`, which experiments/versions.py measures."""
    _, more = said
    assert set(more) <= {
        "orthoreg_jax",
        "lazy_loader",
        "jaxtyping",
        "wadler_lindig",
        "packaging",
    }


def test_the_command_says_what_it_needs(core, tmp_path):
    for command in ([core / "orthoreg"], [core / "python", "-m", "orthoreg_jax"]):
        assert "usage: orthoreg" in run(*command, "--help", folder=tmp_path).stdout
        done = run(*command, "report", "--workdir", "runs", folder=tmp_path)
        assert done.returncode == 1 and not done.stdout
        (line,) = done.stderr.splitlines()
        assert line.startswith("orthoreg: ") and install("experiments") in line


@pytest.mark.parametrize(
    "module, message",
    [
        ("flax", "it needs flax, which is not installed: this needs pip install"),
        ("flax.gone", "it needs flax.gone, which the installed flax does not have: this needs pip"),
    ],
)
def test_what_is_missing_is_explained(module, message):
    with pytest.raises(MissingExtraError, match=message), explained("it"):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)


@pytest.mark.parametrize("error", [ModuleNotFoundError("no", name="flaxen"), ImportError("no")])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(ImportError) as found, explained("it"):
        raise error
    assert found.value is error


def test_a_command_that_finds_a_package_missing_says_so(tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as if it were not installed
    assert cli.main(["measure", "--model", "user/name", "--data", "embedded"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("orthoreg: orthoreg measure needs huggingface_hub, which is not inst")


def test_configs_are_in_the_wheel(core, tmp_path):
    program = "import orthoreg_jax; print(orthoreg_jax.__file__)"
    file = run(core / "python", "-c", program, folder=tmp_path, check=True).stdout.strip()
    installed = pathlib.Path(file).parent / "configs"
    names = {path.name for path in (ROOT / "configs").glob("*.py")}
    assert {path.name for path in installed.iterdir()} == names


def declared():
    """Packages of pyproject.toml, by "core" and by extra, as package indexes spell them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = {"core": project["dependencies"], **project["optional-dependencies"]}
    return {
        key: {spelled(re.split(r"[^\w-]", line)[0]) for line in lines}
        for key, lines in lists.items()
    }


def spelled(name):
    return name.lower().replace("_", "-")


def test_the_extra_is_what_its_list_says():
    owners = metadata.packages_distributions()
    listed = {spelled(owner) for name in EXPERIMENTS for owner in owners[name]}
    assert listed == declared()["experiments"] and not listed & declared()["core"]


def test_every_import_is_declared():
    """What another package happens to bring may be gone with its next version."""
    owners = metadata.packages_distributions() | {"tensorflow": ["tensorflow-cpu"]}
    known = set.union(*declared().values())
    ours = sys.stdlib_module_names | {"orthoreg_jax"}
    for path in NAMES.values():
        for package in {name.partition(".")[0] for name in imported(path)} - ours:
            assert {spelled(owner) for owner in owners[package]} & known, f"{path}: {package}"
