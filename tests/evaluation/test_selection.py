import inspect

import numpy as np
import pytest

from orthoreg_jax.evaluation.selection import choose_addition, choose_negation, normalised

ALPHAS = np.array([0.0, 0.5, 1.0, 2.0])


def test_addition_takes_the_best_mean_of_normalised_accuracy():
    accuracy = np.array([[0.5, 0.2], [0.6, 0.3], [0.9, 0.1], [0.1, 0.1]])
    # Plain means: .35 .45 .5 .1; divided by single accuracy (.9, .3): .61 .83 .67 .22
    choice = choose_addition(ALPHAS, accuracy, np.array([0.9, 0.3]))
    assert choice == (1, 0.5, False)


def test_addition_at_the_edge_and_ties():
    rising = np.array([[0.1], [0.2], [0.3], [0.4]])
    assert choose_addition(ALPHAS, rising, np.array([1.0])) == (3, 2.0, True)
    assert choose_addition(ALPHAS, np.full((4, 2), 0.5), np.ones(2)) == (0, 0.0, False)


@pytest.mark.parametrize(
    "share, expected", [(0.95, (1, 0.5, False)), (0.8, (2, 1.0, False)), (0.1, (3, 2.0, True))]
)
def test_negation_keeps_the_control(share, expected):
    target = np.array([0.6, 0.4, 0.2, 0.1])
    control = np.array([0.50, 0.48, 0.42, 0.10])
    assert choose_negation(ALPHAS, target, control, share) == expected


def test_negation_may_choose_nothing_and_skips_points_that_lose_control():
    assert choose_negation(ALPHAS, np.array([0.2, 0.3, 0.3, 0.3]), np.ones(4), 0.95)[1] == 0
    control = np.array([0.5, 0.1, 0.5, 0.1])
    assert choose_negation(ALPHAS, np.array([0.6, 0.1, 0.5, 0.0]), control, 0.95)[1] == 1.0


def test_normalised_needs_a_model_that_learnt_something():
    np.testing.assert_allclose(normalised(np.array([0.2, 0.4]), np.array([0.4, 0.4])), [0.5, 1.0])
    with pytest.raises(ValueError, match=r"single-task accuracy is 0 \(tasks \[1\]\)"):
        normalised(np.array([0.2, 0.4]), np.array([0.4, 0.0]))


def test_lists_do_and_what_does_not_fit_is_named():
    assert choose_addition([0, 1], [[0.1, 0.2], [0.3, 0.2]], [0.9, 0.8]) == (1, 1.0, True)
    assert choose_negation([0, 1], [0.9, 0.1], [0.7, 0.7], 0.95) == (1, 1.0, True)
    with pytest.raises(ValueError, match="begin with 0.1, expected 0"):
        choose_negation([0.1, 0.2], [0.9, 0.1], [0.7, 0.7], 0.95)
    with pytest.raises(ValueError, match="2 alphas, but target has shape"):
        choose_negation([0.0, 0.2], [0.9], [0.7, 0.7], 0.95)
    with pytest.raises(ValueError, match="row for each of 2 alphas and one column for each of 1"):
        choose_addition([0, 1], [[0.1, 0.2], [0.3, 0.2]], [0.9])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("which", range(3))
def test_no_choice_rests_on_what_is_not_finite(bad, which):
    addition = [ALPHAS.copy(), np.full((4, 2), 0.5), np.ones(2)]
    negation = [ALPHAS.copy(), np.full(4, 0.5), np.ones(4)]
    for choose, numbers, more in (
        (choose_addition, addition, ()),
        (choose_negation, negation, (0.9,)),
    ):
        numbers[which].reshape(-1)[-1] = bad
        with pytest.raises(ValueError, match="contains (NaN or infinity, first|nan|inf) at"):
            choose(*numbers, *more)
    with pytest.raises(ValueError, match="share is nan; give a fraction above 0"):
        choose_negation(ALPHAS, np.ones(4), np.ones(4), np.nan)


@pytest.mark.parametrize(
    "alphas, message",
    [
        ([0, 1, 0.5], "alphas: 1 is followed by 0.5, expected a grid that rises"),
        ([0, 0.5, 0.5], "alphas: 0.5 is followed by 0.5"),
        ([0.2, 0.5, 1.0], "alphas begin with 0.2, expected 0"),
        ([-1.0, 0.0, 1.0], "alphas begin with -1, expected 0"),
        ([], "alphas: there is none"),
        (0.3, "alphas is 0.3; give a list of finite numbers"),
        (np.zeros((3, 1)), r"alphas is an array of shape \(3, 1\)"),
        (["0", "1", "2"], "alphas: contains '0' at 0"),
    ],
)
def test_the_grid_rises_from_0(alphas, message):
    addition, negation = inspect.unwrap(choose_addition), inspect.unwrap(choose_negation)
    with pytest.raises(ValueError, match=message):
        addition(alphas, np.array([[0.1], [0.5], [0.9]]), [1.0])
    with pytest.raises(ValueError, match=message):
        negation(alphas, [0.9, 0.5, 0.1], [0.7, 0.7, 0.7], 0.95)


@pytest.mark.parametrize("share", [95, 0, -0.5, 1.01, True, "0.95", None, np.inf])
def test_the_share_is_a_fraction(share):
    with pytest.raises(ValueError, match="share is .*; give a fraction above 0 and up to 1: 0.95"):
        inspect.unwrap(choose_negation)([0, 0.5], [0.9, 0.4], [0.7, 0.69], share)
    assert choose_negation([0, 0.5], [0.9, 0.4], [0.7, 0.69], 1) == (0, 0.0, False)


def test_per_cent_and_other_things_are_no_accuracies():
    per_cent = "contains 70; give fractions from 0 to 1"
    with pytest.raises(ValueError, match=f"accuracy: {per_cent}"):
        choose_addition([0, 1], [[0.5], [70.0]], [0.9])
    with pytest.raises(ValueError, match=f"single: {per_cent}"):
        choose_addition([0, 1], [[0.5], [0.7]], [70.0])
    with pytest.raises(ValueError, match=f"target: {per_cent}"):
        choose_negation([0, 1], [0.5, 70.0], [0.5, 0.5], 0.9)
    with pytest.raises(ValueError, match=f"control: {per_cent}"):
        choose_negation([0, 1], [0.5, 0.5], [70.0, 0.5], 0.9)
    with pytest.raises(ValueError, match="single is {'mnist': 0.9}, a dict; give an array of num"):
        inspect.unwrap(choose_addition)([0, 1], [[0.5], [0.7]], {"mnist": 0.9})
