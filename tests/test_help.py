"""What --help says is true, and comes at once."""

import os
import subprocess
import sys

import pytest

from orthoreg_jax import cli
from orthoreg_jax.config import default_config, flatten_config, override
from orthoreg_jax.option_list import options_text, parse_options

# What --help may take of the processor, where Python itself takes 15 ms.
SECONDS = 0.1


def listed():
    """Options by name, `per_method` with each method's."""
    flat = flatten_config(default_config())
    methods = {name.split(".")[1] for name in flat if name.startswith("per_method.")}
    found = {}
    for option in parse_options():
        for method in methods if "METHOD" in option.name else ("",):
            name = option.name.replace("METHOD", method)
            if name in flat or "METHOD" not in option.name:  # modes alone have no strength
                found[name] = option.default
    return found


def test_the_list_is_every_option_at_its_default():
    assert listed() == flatten_config(default_config())


def test_what_is_listed_can_be_pasted():
    text = options_text()
    for option in parse_options():
        assert f"    --config.{option.name}=" in text
    lines = [line.strip() for line in text.splitlines() if line.startswith("    --config.")]
    config = default_config()
    whole = [line for line in lines if "METHOD" not in line and "..." not in line]
    override(config, [line.removeprefix("--config.") for line in whole])
    assert len(whole) > 40 and flatten_config(config) == flatten_config(default_config())
    assert "      Optimiser steps for each task, if `epochs` is 0." in text.splitlines()


def test_every_option_has_its_own_words():
    assert [option.name for option in parse_options() if not option.comment] == []


def help_of(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", ["run", "finetune", "evaluate", "report", "data check"])
def test_commands_with_a_config_for_a_run_list_its_options(capsys, command):
    text = help_of(capsys, *command.split())
    assert text.startswith(f"usage: orthoreg {command} [-h]")
    assert ("--config.training.steps=100" in text.split("their defaults")[-1]) == (
        command in ("run", "finetune", "evaluate")
    )


def test_each_action_of_data_has_its_own_help(capsys):
    assert "--tfds" not in (text := help_of(capsys, "data", "check")) and "duplicates" in text
    assert "--tfds" in (text := help_of(capsys, "data", "prepare")) and "duplicates" not in text


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["data", "check", "--help"]])
def test_help_comes_at_once(words, tmp_path):
    program = f"""
import resource, runpy, sys
sys.argv = ["orthoreg", *{words!r}]
try:
    runpy.run_module("orthoreg_jax", run_name="__main__")
except SystemExit as ended:
    assert ended.code == 0
assert not {{"jax", "numpy", "ml_collections"}} & set(sys.modules)
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, file=sys.stderr)
"""
    command = [sys.executable, "-c", program]
    tries = []
    for _ in range(5):  # other programs take from its caches
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
        tries.append(float(done.stderr))
        if tries[-1] < SECONDS:
            return
    raise AssertionError(tries)
