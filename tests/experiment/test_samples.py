"""The samples beside a run's results: what they say is what was measured."""

import base64
import io
import shutil

import numpy as np
import PIL.Image
import pytest

from orthoreg_jax.config import load_config
from orthoreg_jax.experiment.samples import PICTURES, SAMPLES_FILE, by_class, picture, read_samples
from orthoreg_jax.experiment.setup import prepare
from orthoreg_jax.storage import StorageError, read_sealed
from orthoreg_jax.tasks.batches import limited_rows
from orthoreg_jax.trees import load_tree
from tests.small_run import orthoreg


@pytest.fixture(scope="module")
def samples(finished):
    return read_samples(finished)


def test_classes_add_up_to_the_accuracies_of_the_results(finished, samples):
    results = read_sealed(finished / "results.json")
    for task, found in samples["tasks"].items():
        counts = np.array(found["counts"])
        mean = {
            model: np.dot(counts, [share or 0 for share in shares]) / counts.sum()
            for model, shares in found["accuracies"].items()
        }
        assert np.isclose(mean.pop("zero-shot"), results["zero_shot"]["test"][task])
        for run in results["runs"]:
            measured = {
                "single": run["single"]["test"][task],
                "added": run["addition"]["test"][task],
                "negated": run["negation"][task]["shares"][samples["share"]]["target"],
            }
            for edit, accuracy in measured.items():
                assert np.isclose(mean.pop(f"{run['method']}/{edit}"), accuracy)
        assert not mean and len(found["classes"]) == len(found["counts"])


def test_answers_are_those_that_were_counted(inputs, finished, samples, tmp_path):
    experiment = prepare(load_config(inputs), tmp_path / "run")
    for task, found in samples["tasks"].items():
        test = experiment.tasks[task].splits["test"]
        rows = limited_rows(len(test), PICTURES)
        assert [image["label"] for image in found["images"]] == test.labels[rows].tolist()
        for method in ("full", "full+orthoreg"):
            right = load_tree(finished / method / "seed3" / "correct.safetensors")
            right = {
                "single": right["single"][task],
                "added": right["added"][task],
                "negated": right["negated"][samples["share"]][task],
            }
            for edit, answers in right.items():
                said = [image["answers"][f"{method}/{edit}"] for image in found["images"]]
                np.testing.assert_array_equal(said == test.labels[rows], answers[rows])
        for image, expected in zip(
            found["images"], experiment.images(task, "test", PICTURES)[0], strict=True
        ):
            kind, _, content = image["picture"].partition(",")
            assert kind == "data:image/png;base64"
            shown = PIL.Image.open(io.BytesIO(base64.b64decode(content)))
            np.testing.assert_array_equal(np.asarray(shown), expected)


def test_they_are_made_once_and_again_when_they_are_gone_or_damaged(finished, inputs, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "run")
    before = (copy / SAMPLES_FILE).stat().st_mtime_ns
    assert orthoreg("evaluate", inputs, copy) == 0
    assert (copy / SAMPLES_FILE).stat().st_mtime_ns == before
    whole = (copy / SAMPLES_FILE).read_bytes()
    (copy / SAMPLES_FILE).write_bytes(whole[:-40])
    with pytest.raises(StorageError, match=r"samples\.json.*delete it, and run the stage `eval"):
        read_samples(copy)
    assert orthoreg("evaluate", inputs, copy) == 0
    assert (copy / SAMPLES_FILE).read_bytes() == whole


def test_accuracy_by_class_is_a_mean_over_images_and_seeds():
    right = np.array([[True, False, True, True], [True, True, False, False]])
    assert by_class(right, np.array([0, 0, 2, 2]), 3) == [0.75, None, 0.5]


def test_large_pictures_become_small_ones():
    noise = np.random.default_rng(0).integers(0, 256, (224, 112, 3), np.uint8)
    kind, _, content = picture(noise).partition(",")
    assert kind == "data:image/jpeg;base64" and len(content) < 8000
    assert PIL.Image.open(io.BytesIO(base64.b64decode(content))).size == (32, 64)
