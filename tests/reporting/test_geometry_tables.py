import pytest

from orthoreg_jax.reporting.geometry_tables import claims_table, features_table, geometry_table


def cells(results):
    table = claims_table(results)
    assert table.header == ("Claim", "Non-linear FT")
    return {claim.split(" (")[0]: cell for claim, cell in table.rows}


def test_one_seed_decides_nothing(results):
    """Of one seed "all agree", and its accuracies lack the spread between trainings."""
    results["runs"][1]["geometry"]["column_cosines"] = {"a": 0.1, "b": 0.1}
    results["runs"][1]["features"]["overlap"] = None  # as of a run that was not measured there
    verdicts = cells(results)
    assert verdicts["Negation forgets more"] == "one seed: −5.00"
    assert verdicts["Columns of an update are closer to orthogonal"] == "one seed: 0.2 → 0.1"
    assert verdicts["Updates are closer to orthonormal"] == "one seed: 5 → 5"
    assert verdicts.pop("Tasks use more separate features") == "–"
    assert all(cell.startswith("one seed: ") for cell in verdicts.values())
    (note,) = claims_table(results).notes
    assert "One seed decides no claim" in note and "yes or no" not in note


def test_a_seed_without_its_counterpart_decides_nothing(two_seeds):
    """Two seeds with the penalty and one without are one pair."""
    two_seeds["runs"] = [run for run in two_seeds["runs"] if run["strength"] or run["seed"] == 0]
    assert cells(two_seeds)["Columns of an update are closer to orthogonal"].startswith("one seed:")


@pytest.mark.parametrize(("seeds", "claims"), [(2, 2), (3, 4)])
def test_how_often_seeds_agree_by_chance_is_said(two_seeds, seeds, claims):
    """Fair coins: all of n fall on one side with probability 2 / 2^n."""
    runs = two_seeds["runs"]
    two_seeds["runs"] += [run | {"seed": 2} for run in runs if run["seed"] == 1][: 2 * (seeds - 2)]
    (note,) = claims_table(two_seeds).notes
    assert f"as {seeds} would by chance in one of {claims} claims" in note


def test_accuracies_are_judged_by_their_interval(two_seeds):
    verdicts = cells(two_seeds)
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
def test_a_change_that_is_not_seen_is_none(two_seeds, after, verdict):
    for run in two_seeds["runs"]:
        if run["strength"]:
            run["geometry"]["column_cosines"] = {"a": after, "b": after}
    assert cells(two_seeds)["Columns of an update are closer to orthogonal"] == verdict


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
