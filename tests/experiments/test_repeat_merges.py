"""Merges by singular values go on, beside a busy process, and end when they are told to."""

import pathlib
import signal
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "experiments" / "repeat_merges.py"


@pytest.mark.parametrize("options", [["--width", "64"], ["--width", "16", "--traced"]])
def test_none_stops(options, tmp_path):
    command = [sys.executable, str(SCRIPT), "--merges", "12", *options, "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 merges in a row" in done.stdout
    assert "| 12 | 0 |" in (tmp_path / "repeat_merges.md").read_text()


def test_an_interrupt_ends_a_merge():
    command = [sys.executable, str(SCRIPT), "--merges", "100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"the first is done\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert errors.rstrip().endswith(b"KeyboardInterrupt") and process.returncode != 0
