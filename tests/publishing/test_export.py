"""What a run exports is the model that it measured."""

import json
import shutil

import huggingface_hub
import jax
import numpy as np
import pytest

import orthoreg_jax as oj
from orthoreg_jax import cli
from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.trees import load_tree
from tests.small_run import change_results, pretrained

METHOD = "full+orthoreg"


def export(workdir, out, *more, method=METHOD):
    command = ["export", "--workdir", str(workdir), "--out", str(out), "--method", method, *more]
    return cli.main(command)


@pytest.fixture
def results(finished):
    return json.loads((finished / "results.json").read_text())


def vector(finished, task):
    return load_tree(finished / METHOD / "seed3" / task / "vector.safetensors")


def edited(finished, *scaled):
    """theta_0 + sum of scale * tau, written out."""
    params = pretrained(finished).params
    for scale, task in scaled:
        tower = jax.tree.map(
            lambda leaf, tau: leaf + np.float32(scale) * tau,  # noqa: B023
            params["visual"], vector(finished, task)["visual"],
        )  # fmt: skip
        params = params | {"visual": tower}
    return params


@pytest.mark.parametrize("edit", ["all", "one", "forget", "by hand"])
def test_weights_and_card(finished, inputs, results, tmp_path, edit):
    run = next(run for run in results["runs"] if run["method"] == METHOD)
    alpha = run["addition"]["alpha"]
    negation = run["negation"]["first"]["shares"]["0.95"]
    more, scaled, measured = {
        "all": ([], [(alpha, "first"), (alpha, "second")], run["addition"]["test"]),
        "one": (["--tasks", "second"], [(1, "second")],
                {"second": run["single"]["test"]["second"]}),
        "forget": (["--forget", "first"], [(-negation["alpha"], "first")],
                   {"first": negation["target"], "others": negation["control"]}),
        "by hand": (["--tasks", "first,second", "--alpha", "0.7"],
                    [(0.7, "first"), (0.7, "second")], {}),
    }[edit]  # fmt: skip
    assert export(finished, tmp_path / "out", *more) == 0
    found = load_checkpoint(tmp_path / "out")
    expected = edited(finished, *scaled)
    for ours, theirs in zip(jax.tree.leaves(found.params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    card = (tmp_path / "out" / "README.md").read_text()
    # The card states what the exported files are measured to do, on the same images.
    tasks = oj.load_tasks(str(inputs.parent), ["first", "second"], "others")
    for name, stated in measured.items():
        again = oj.measure_accuracy(found, found.params, tasks[name])
        assert again == pytest.approx(stated, abs=1e-6)
        assert f"{100 * stated:.2f} |" in card
    assert ("did not measure" in card) == (not measured)
    assert f"θ₀ {'-' if edit == 'forget' else '+'} " in card and found.sha256


@pytest.mark.parametrize(
    "more, titles",
    [
        ([], ["first", "second"]),
        (["--tasks", "second"], ["second"]),
        (["--forget", "first"], ["first", "others"]),
    ],
)
def test_a_card_says_how_many_images_its_numbers_rest_on(finished, results, tmp_path, more, titles):
    """A share of the test images is not the test split: not in the table, and not on the hub."""
    copy = shutil.copytree(finished, tmp_path / "run")
    limits = {"evaluation.max_test_images": 20, "evaluation.max_val_images": 10}
    for out, limit in (("whole", {}), ("limited", limits)):
        change_results(copy, lambda results: results["config"].update(limit))  # noqa: B023
        assert export(copy, tmp_path / out, *more) == 0
    for out, images in (("whole", "36"), ("limited", "20 of 36")):
        card = huggingface_hub.ModelCard.load(tmp_path / out / "README.md")
        assert card.text.count(f" | {images} | ") == len(titles)
        assert [each.metric_name for each in card.data.eval_results] == [
            f"accuracy on {images} test images"
        ] * len(titles)
        limited = out == "limited" and more[:1] != ["--tasks"]  # whose alpha is not chosen
        assert ("at most 10 validation images" in card.text) == limited


@pytest.mark.parametrize(
    "method, more, message",
    [
        ("lora", [], "--method lora: the run has full seed 3, full+orthoreg seed 3"),
        (METHOD, ["--seed", "0"], "--method full+orthoreg seed 0: the run has"),
        (METHOD, ["--tasks", "first,third"], "tasks third: the run has first, second"),
        (METHOD, ["--tasks", "first,first"], "a task appears twice"),
        (METHOD, ["--tasks", "first", "--forget", "second"], "give only one of them"),
        (METHOD, ["--out", __file__], "is a file; choose a new directory"),
        (METHOD, ["--alpha", "-1"], "--alpha -1.0: give a number above 0"),
        (METHOD, ["--alpha", "1e39"], "--alpha 1e+39: too large for float32 weights"),
    ],
)
def test_bad_requests(finished, tmp_path, capfd, method, more, message):
    assert export(finished, tmp_path / "out", *more, method=method) == 1
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_there_is_replaced_when_asked(finished, tmp_path, capfd):
    """As one whose command was killed after it was written, but before it could say so."""
    out = tmp_path / "out"
    assert export(finished, out, "--tasks", "first") == 0
    before = (out / "model.safetensors").read_bytes()
    assert export(finished, out, "--tasks", "second") == 1
    assert "contains a complete model from an earlier command" in capfd.readouterr().err
    assert export(finished, out, "--tasks", "second", "--overwrite") == 0
    assert (out / "model.safetensors").read_bytes() != before
    (out / "README.md").write_text("My thesis")
    assert export(finished, out, "--overwrite") == 1
    assert "is not empty; choose a new directory" in capfd.readouterr().err
    assert (out / "README.md").read_text() == "My thesis"


def test_several_but_not_all_tasks_need_an_alpha(finished, tmp_path, capfd):
    copy = shutil.copytree(finished, tmp_path / "run")
    change_results(copy, lambda results: results["tasks"].update(third="Third"))
    assert export(copy, tmp_path / "out", "--tasks", "first,second") == 1
    assert "together only; give --alpha" in capfd.readouterr().err


def test_a_linearised_model_is_no_set_of_weights(finished, tmp_path, capfd):
    copy = shutil.copytree(finished, tmp_path / "run")
    change_results(copy, lambda results: results["runs"][0].update(method="linearized"))
    assert export(copy, tmp_path / "out", method="linearized") == 1
    assert "cannot be written as the weights of a CLIP" in capfd.readouterr().err


def test_another_pretrained_model_is_refused(finished, tmp_path, capfd):
    copy = shutil.copytree(finished, tmp_path / "run")
    weights = {"model.safetensors": "0" * 64}
    change_results(copy, lambda results: results["provenance"]["inputs"]["model"].update(weights))
    assert export(copy, tmp_path / "out") == 1
    assert "its files have changed since the run started" in capfd.readouterr().err
