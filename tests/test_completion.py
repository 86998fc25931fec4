"""What shells complete after `orthoreg`."""

import shutil
import subprocess

import pytest

from orthoreg_jax import cli
from orthoreg_jax.completion import SHELLS

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


@pytest.mark.parametrize(
    "before, word, expected",
    [
        ("orthoreg", "me", "merge measure"),
        ("orthoreg", "--v", "--version"),
        ("orthoreg run", "--conf", "--config"),
        ("orthoreg run --config x", "--work", "--workdir"),
        ("orthoreg report", "--c", ""),
        ("orthoreg data", "", "check prepare -h --help --config --tasks --data --tfds"),
        ("orthoreg completion", "z", "zsh"),
        ("orthoreg merge", "--opt", "--option"),
    ],
)
def test_bash_completes(script, before, word, expected):
    command = ["bash", "-c", ASK, "bash", script("bash"), before, word]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
    assert not done.stderr


def test_zsh_reads_its_script(script):
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not on this machine")
    subprocess.run(["zsh", "-n", script("zsh")], check=True)


def test_shells_are_named_in_the_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["completion", "fish"])
    assert "choose from" in (text := capsys.readouterr().err)
    assert all(shell in text for shell in SHELLS)
