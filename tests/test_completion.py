"""What shells complete after `orthoreg`."""

import shutil
import subprocess

import pytest

from orthoreg_jax import cli
from orthoreg_jax.clip.saving import OUTPUTS
from orthoreg_jax.completion import SHELLS, VALUES
from orthoreg_jax.config import default_config, flatten_config
from orthoreg_jax.merging import MERGERS
from orthoreg_jax.publishing.fitting import FITTED
from orthoreg_jax.shipped_configs import shipped_configs
from orthoreg_jax.tasks.experts import EXPERTS

ASK = """
source "$1"
COMP_WORDS=($2 "$3")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_orthoreg
echo "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(tmp_path, capsys):
    def write(shell):
        assert cli.main(["completion", shell]) == 0
        (tmp_path / shell).write_text(capsys.readouterr().out)
        return str(tmp_path / shell)

    return write


def complete(script, before, word, folder=None):
    command = ["bash", "-c", ASK, "bash", script, before, word]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    assert not done.stderr
    return done.stdout.split()


CONFIGS = [*shipped_configs()]
EMBEDDED = [name for name in CONFIGS if name.startswith("em")]


@pytest.mark.parametrize(
    "before, word, expected",
    [
        ("orthoreg", "me", "merge measure"),
        ("orthoreg", "--v", "--version"),
        ("orthoreg run", "--conf", "--config"),
        ("orthoreg run --config x", "--work", "--workdir"),
        ("orthoreg report", "--c", ""),
        ("orthoreg data", "", "check prepare -h --help"),
        ("orthoreg data check", "--t", "--tasks"),
        ("orthoreg data prepare", "--t", "--tasks --tfds"),
        ("orthoreg completion", "z", "zsh"),
        ("orthoreg merge", "--opt", "--option"),
        ("orthoreg run --config", "embedded_r", "embedded_regime"),
        ("orthoreg data check --config", "emb", " ".join(EMBEDDED)),
        ("orthoreg run --config =", "fourt", "fourteen"),
        ("orthoreg merge --layout", "v", "vision vision-bare vision-projection"),
        ("orthoreg export --method full --layout", "open", "open_clip"),
        ("orthoreg merge --merger", "ts", "tsv_m"),
        ("orthoreg merge --space", "k", "knots"),
        ("orthoreg measure --split", "", "train val test"),
        ("orthoreg measure --experts", "fu", ""),  # an option of other commands
        ("orthoreg run --experts", "fusionbench/ViT-L", "fusionbench/ViT-L/14"),
        ("orthoreg run --workdir", "--", ""),  # a folder, and no option
        ("orthoreg run --distributed", "--coo", "--coordinator"),  # which takes no value
        ("orthoreg run --models a=b c=d", "--ba", "--base"),
        ("orthoreg run", "--config.lora.r", "--config.lora.rank="),
        ("orthoreg run --config x --config.training.steps = 3", "--config.see", "--config.seeds="),
        ("orthoreg report", "--config.see", ""),
        ("orthoreg init mine.py --config", "tw", "twenty"),
    ],
)
def test_bash_completes(script, before, word, expected):
    assert complete(script("bash"), before, word) == expected.split()


def test_after_config_files_are_completed_too(script, tmp_path):
    (tmp_path / "here").mkdir()
    for name in ("emotions.py", "emotions.txt"):
        (tmp_path / "here" / name).write_text("")
    found = complete(script("bash"), "orthoreg run --config", "em", tmp_path / "here")
    assert found == ["emotions.py", *EMBEDDED]


def test_every_option_is_completed(script):
    found = complete(script("bash"), "orthoreg run", "--config.")
    known = [key for key in flatten_config(default_config()) if not key.startswith("per_method")]
    assert sorted(found) == sorted(f"--config.{key}=" for key in known)


def test_values_are_those_of_their_tables():
    tables = {"--merger": [*MERGERS, *FITTED], "--layout": OUTPUTS, "--experts": EXPERTS}
    assert {flag: tuple(table) for flag, table in tables.items()} == VALUES


def test_zsh_reads_its_script(script):
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not on this machine")
    subprocess.run(["zsh", "-n", script("zsh")], check=True)


def test_shells_are_named_in_the_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["completion", "fish"])
    assert "choose from" in (text := capsys.readouterr().err)
    assert all(shell in text for shell in SHELLS)
