from orthoreg_jax.reporting.findings import describe_findings


def test_footing(results, two_seeds):
    first = describe_findings(results)[0]
    assert "1 seed and 160 test images of 2 tasks (80 each)" in first
    assert "30.00 %" in first
    assert "With one seed" in first
    assert "2 seeds" in describe_findings(two_seeds)[0]
    assert "With one seed" not in describe_findings(two_seeds)[0]


def test_small_difference_is_called_so(results):
    text = describe_findings(results)[1]
    assert "accuracy is 50.50 %, against 50.00 %" in text
    assert "+0.50 points, 95 % confidence interval −3.00 to +4.00, within noise" in text
    assert (
        "60.00 % against 70.00 % (−10.00 points, 95 % confidence interval −20.00 to −5.00)" in text
    )
    assert "10.00 % on the forgotten task, against 15.00 %" in text
    assert "only because" not in text


def test_a_norm_that_rises_by_lower_single_task_accuracy_is_called_so(results):
    results["runs"][1]["addition"]["absolute"] = 0.45
    assert "Norm is higher only because" in describe_findings(results)[1]


def test_worse_than_zero_shot_is_said(results):
    results["runs"][0]["addition"]["absolute"] = 0.3
    paragraph = describe_findings(results)[1]
    assert "The added model of Non-linear FT does not beat zero-shot." in paragraph


def test_edges(results):
    assert describe_findings(results)[-1].startswith("Some α are the largest tried")
    results["runs"] = results["runs"][:1]
    assert not any("largest tried" in text for text in describe_findings(results))


def test_a_method_alone_is_described(results):
    results["runs"] = results["runs"][:1]
    assert "Non-linear FT: the added model's accuracy is 50.00 %" in describe_findings(results)[1]
