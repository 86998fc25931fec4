import pytest

from orthoreg_jax.reporting.geometry_tables import claims_table, features_table, geometry_table


def cells(results):
    table = claims_table(results)
    assert table.header == ("Claim", "Non-linear FT")
    return {claim.split(" (")[0]: cell for claim, cell in table.rows}


def test_accuracies_are_judged_by_their_interval(results):
    verdicts = cells(results)
    assert verdicts["One model for all tasks is better"] == "within noise: +0.50"
    # The target's accuracy falls, which is what negation wants.
    assert verdicts["Negation forgets more"] == "yes: −5.00"


def test_seeds_that_disagree_leave_an_accuracy_open(two_seeds):
    assert cells(two_seeds)["Negation forgets more"] == "yes: −5.00"
    for each in two_seeds["comparisons"]:
        each["deviation"] = 0.04  # two standard errors are 5.7 points
    assert cells(two_seeds)["Negation forgets more"] == "within noise: −5.00"


def test_shapes_are_judged_seed_by_seed(two_seeds):
    with_penalty = [run for run in two_seeds["runs"] if run["strength"]]
    for run in with_penalty:
        run["geometry"]["column_cosines"] = {"a": 0.1, "b": 0.1}
        run["features"]["overlap"] = 0.5
    with_penalty[0]["geometry"]["gram_deviations"] = {"a": 1.0, "b": 1.0}
    with_penalty[1]["geometry"]["gram_deviations"] = {"a": 9.0, "b": 9.0}
    verdicts = cells(two_seeds)
    assert verdicts["Columns of an update are closer to orthogonal"] == "yes: 0.2 → 0.1"
    assert verdicts["Tasks use more separate features"] == "no: 0.4 → 0.5"
    assert verdicts["Updates are closer to orthonormal"] == "within noise: 5 → 5"


@pytest.mark.parametrize(
    ("after", "verdict"),
    [(0.19997, "no change: 0.2"), (0.20003, "no change: 0.2"), (0.2006, "no: 0.2 → 0.201")],
)
def test_a_change_that_is_not_seen_is_none(results, after, verdict):
    results["runs"][1]["geometry"]["column_cosines"] = {"a": after, "b": after}
    assert cells(results)["Columns of an update are closer to orthogonal"] == verdict


def test_what_was_not_measured_is_left_open(results):
    for run in results["runs"]:
        run["features"], run["disentanglement"] = None, []
    verdicts = cells(results)
    assert verdicts["Tasks use more separate features"] == "–"
    assert verdicts["Adding a vector changes fewer predictions on the other task"] == "–"


@pytest.mark.parametrize("kept", [0, 1])
def test_no_pair_no_table(results, kept):
    results["runs"] = [results["runs"][kept]]
    assert claims_table(results) is None


def test_geometry_table(results):
    # Largest singular value 0.4 for both tasks; column cosines 0.1 and 0.3; |-0.25| off diagonal.
    assert geometry_table(results).rows[1] == (
        *("Non-linear FT + OrthoReg", "10", "1.5", "0.4", "1.5", "5", "0.2", "0.25"),
    )


def test_features_table(results):
    table = features_table(results)
    assert table.rows[0] == ("Zero-shot", "", "0.5", "", "")
    # Own: the diagonal 1 and 2; others: 0.2 and 0.4.
    assert table.rows[1] == ("Non-linear FT", "0", "0.4", "1.5", "0.3")
    results["features"] = None
    assert features_table(results) is None


def test_geometry_of_one_task(results):
    for run in results["runs"]:
        run["geometry"]["cosines"] = [[1.0]]
    assert geometry_table(results).rows[0][-1] == "0"
