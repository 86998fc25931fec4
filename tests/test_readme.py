"""The README's code runs as it stands, and what it names exists."""

import json
import re

import numpy as np
import pytest
import safetensors.numpy

import orthoreg_jax as oj
from orthoreg_jax.experiment.vectors import vector_facts


@pytest.fixture(scope="module")
def readme(pytestconfig):
    return (pytestconfig.rootpath / "README.md").read_text()


def code_blocks(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_penalty_example(readme, capsys):
    exec(compile(code_blocks(readme)[0], "README", "exec"), {})
    said = re.search(r"It prints `(.*)`", readme)[1]
    assert re.fullmatch(r"loss 0\.000, penalty 0\.0\d\d", said)
    loss, penalty = re.match(r"loss ([\d.]+), penalty ([\d.]+)", capsys.readouterr().out).groups()
    assert float(loss) < 0.001 and float(penalty) < 0.05  # sqrt(16) is where the penalty starts


def test_composition_example(readme, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    kernel = oj.load_checkpoint("embedded").params["visual"]["projection"]["kernel"]
    for number, task in enumerate(("mnist", "emoji"), start=1):
        vector = {"visual": {"projection": {"kernel": np.full_like(kernel, number)}}}
        path = tmp_path / f"runs/embedded/full/seed0/{task}/vector.safetensors"
        oj.save_tree(path, vector, vector_facts("full", 0, task, "hash"))
    config = {"tasks": ["mnist", "emoji"], "seeds": [0]}
    (tmp_path / "runs/embedded/config.json").write_text(json.dumps(config))
    facts = {"inputs": {"weights": {"sha256": "hash"}}}
    (tmp_path / "runs/embedded/provenance.json").write_text(json.dumps(facts))
    exec(compile(code_blocks(readme)[1], "README", "exec"), {})
    assert re.search(r"Emoji groups: [\d.]+% -> [\d.]+%", capsys.readouterr().out)
    tensors = safetensors.numpy.load_file(tmp_path / "merged" / "model.safetensors")
    np.testing.assert_allclose(tensors["visual_projection.weight"], kernel.T + 0.9, rtol=1e-5)


def test_links_and_public_names_exist(readme, pytestconfig):
    for target in re.findall(r"\]\((?!http|#)([^)]+)\)", readme):
        assert (pytestconfig.rootpath / target).exists(), target
    for name in oj.__all__:
        assert getattr(oj, name) is not None
