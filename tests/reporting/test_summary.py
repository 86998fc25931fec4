import math

import pytest

from orthoreg_jax.reporting.summary import (
    control_shares,
    count_images,
    describe_images,
    estimate,
    find_comparison,
    group_methods,
    images_tested,
    penalty_pairs,
    standard_error,
    tasks_at_edge,
    zero_shot_mean,
)


def test_estimate():
    assert estimate([3.0]) == (3.0, None)
    mean, deviation = estimate([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert deviation == pytest.approx(1.0)  # divisor n - 1


def test_methods_keep_their_order_and_seeds(two_seeds):
    methods = group_methods(two_seeds)
    assert [method.name for method in methods] == ["full", "full+orthoreg"]
    assert [[run["seed"] for run in method.runs] for method in methods] == [[0, 1], [0, 1]]
    assert [(a.name, b.name) for a, b in penalty_pairs(two_seeds)] == [("full", "full+orthoreg")]


def test_a_method_without_counterpart_is_in_no_pair(results):
    results["runs"] = results["runs"][1:]
    assert penalty_pairs(results) == []


def test_shares_begin_with_the_default(results):
    assert control_shares(results) == ["0.95", "0.8"]


def test_zero_shot_leaves_the_control_task_out(results):
    assert zero_shot_mean(results) == pytest.approx(0.3)


def test_a_comparison_is_found_by_its_three_names(results):
    found = find_comparison(results, "full", "full+orthoreg", "added")
    assert found["difference"] == 0.005
    assert find_comparison(results, "full", "full", "added") is None


def test_edges_of_any_seed_count(two_seeds):
    plain, other = group_methods(two_seeds)
    assert tasks_at_edge(plain, "0.95") == []
    assert tasks_at_edge(other, "0.95") == ["b"]


@pytest.mark.parametrize(("limit", "images"), [(80, 80), (0, 100), (500, 100)])
def test_tested_images(results, limit, images):
    results["config"]["evaluation.max_test_images"] = limit
    assert images_tested(results) == {"a": images, "b": images, "c": images}


def test_what_the_numbers_rest_on_is_said(results):
    assert describe_images(results) == (
        "Measured on 80 test images of each task (evaluation.max_test_images is 80; the splits "
        "have 100)."
    )
    results["config"] |= {"evaluation.max_test_images": 0, "evaluation.max_val_images": 19}
    results["provenance"]["inputs"]["tasks"]["b"] = {"splits": {
        "val": {"images": 19}, "test": {"images": 70}
    }}  # fmt: skip
    assert [str(each) for each in count_images(results, "val").values()] == [
        "19 of 20",
        "19",
        "19 of 20",
    ]
    assert describe_images(results) == (
        "Measured on 70 to 100 test images of each task. α is chosen on at most 19 validation "
        "images of each task (evaluation.max_val_images)."
    )


def test_standard_error():
    # Of one coin thrown 100 times: sqrt(0.25 / 100); of the mean of two such coins, less by sqrt 2.
    assert standard_error({"a": 0.5}, {"a": 100}) == pytest.approx(0.05)
    both = standard_error({"a": 0.5, "b": 0.5}, {"a": 100, "b": 100})
    assert both == pytest.approx(0.05 / math.sqrt(2))
