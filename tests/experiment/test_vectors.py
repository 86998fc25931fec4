import re

import numpy as np
import pytest

import orthoreg_jax as oj


def test_vectors_of_a_run(finished):
    vectors = oj.load_task_vectors(finished, "full+orthoreg")
    assert list(vectors) == ["first", "second"]
    file = oj.load_tree(finished / "full+orthoreg/seed3/second/vector.safetensors")
    kernel = vectors["second"]["visual"]["projection"]["kernel"]
    np.testing.assert_array_equal(kernel, file["visual"]["projection"]["kernel"])


@pytest.mark.parametrize(
    "method, seed, message",
    [
        ("lora", None, "no task vector of lora seed 3 for first, second; it has full seed"),
        ("full", 7, "of full seed 7 for first, second; it has full seed 3, full+orthoreg"),
    ],
)
def test_what_a_run_does_not_have(finished, method, seed, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        oj.load_task_vectors(finished, method, seed)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="has no config.json, so it is not a run folder"):
        oj.load_task_vectors(tmp_path, "full")
