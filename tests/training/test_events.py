"""Event files hold what metrics.jsonl holds."""

import importlib.util
import json
import struct

import pytest

from tests.small_run import orthoreg


def test_what_tensorboard_reads(inputs, tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra [tensorboard] is not installed")
    from tensorboardX.proto.event_pb2 import Event

    options = ["--config.training.tensorboard=True", "--config.methods=full+orthoreg"]
    options += ["--config.tasks=first"]
    assert orthoreg("finetune", inputs, tmp_path / "run", *options) == 0
    folder = tmp_path / "run" / "full+orthoreg" / "seed3" / "first"
    (path,) = (folder / "events").iterdir()
    data, found = path.read_bytes(), {}
    while data:  # records of length, checksum, content, checksum
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        data = data[12 + length + 4 :]
        for value in event.summary.value:
            found[event.step, value.tag] = value.simple_value
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    expected = {(line["step"], name): line[name]
                for line in lines for name in ("loss", "penalty", "gradient_norm")}  # fmt: skip
    assert found == pytest.approx(expected, rel=1e-6)


def test_without_the_package_it_is_said_before_work_starts(inputs, tmp_path, capfd, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *more: None if name == "tensorboardX" else find(name),
    )
    option = "--config.training.tensorboard=True"
    assert orthoreg("finetune", inputs, tmp_path / "run", option) == 1
    assert "pip install 'orthoreg-jax[tensorboard]'" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
