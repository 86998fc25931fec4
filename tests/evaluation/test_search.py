import numpy as np
import pytest

from orthoreg_jax.evaluation.search import (
    ALPHA_FACTORS,
    flat_range,
    search_addition,
    search_negation,
    search_per_task,
)

COARSE = [0.0, *(2.0**power for power in range(-8, 2))]


def peaked(at, width=1.0):
    """Accuracy with one peak over log alpha, and how many alphas it was asked for."""
    asked = []

    def measure(alphas):
        asked.extend(alphas)
        logs = np.log(np.maximum(alphas, 1e-9) / at) / width
        return np.stack([0.5 + 0.4 * np.exp(-(logs**2)), 0.3 + 0.2 * np.exp(-(logs**2))], axis=1)

    return measure, asked


@pytest.mark.parametrize("at", [0.003, 0.011, 0.1, 0.29, 0.77, 1.9])
def test_addition_finds_a_peak_wherever_it_is_with_as_many_evaluations(at):
    measure, asked = peaked(at)
    found = search_addition(measure, COARSE, np.array([0.9, 0.6]), rounds=3)
    assert len(asked) == len(found.alphas) == len(COARSE) + 2 * 3
    # Three rounds leave neighbours of ratio 2 ** (1 / 8); beyond the end, of 2.
    assert abs(np.log2(found.choice.alpha / at)) <= 1 / 8
    assert np.all(np.diff(found.alphas) > 0)
    np.testing.assert_array_equal(found.accuracy, peaked(at)[0](found.alphas))
    # What a table says is what was measured.
    assert all(float(f"{alpha:.4g}") == alpha for alpha in found.alphas)


def test_addition_goes_on_beyond_the_end_and_says_where_it_stopped():
    found = search_addition(lambda a: a[:, None] / 100, [0.0, 0.5, 1.0], np.ones(1), rounds=2)
    assert (found.choice.alpha, found.choice.at_edge) == (4.0, True)
    falling = search_addition(lambda a: 1 - a[:, None], [0.0, 0.5, 1.0], np.ones(1), rounds=2)
    assert (falling.choice.alpha, falling.choice.at_edge) == (0.0, False)
    assert len(falling.alphas) == 3 + 2 * 2


def test_equals_go_to_the_smaller_alpha_and_no_round_leaves_the_grid_alone():
    flat = search_addition(lambda a: np.ones((len(a), 1)), COARSE, np.ones(1), rounds=3)
    assert flat.choice.alpha == 0
    grid = search_addition(lambda a: a[:, None], [0.0, 0.3, 0.7], np.ones(1), rounds=0)
    assert grid.alphas.tolist() == [0.0, 0.3, 0.7] and grid.choice == (2, 0.7, True)


@pytest.mark.parametrize("bound", [0.02, 0.13, 0.9])
def test_negation_comes_near_the_alpha_at_which_control_is_lost(bound):
    def measure(alphas):
        return np.stack([0.8 - 0.1 * alphas, np.where(alphas <= bound, 0.7, 0.1)], axis=1)

    found, (choice,) = search_negation(measure, COARSE, [0.95], rounds=3)
    assert bound / 2 ** (1 / 8) <= choice.alpha <= bound
    assert len(found.alphas) == len(COARSE) + 3


def test_negation_refines_an_interior_minimum_and_every_share_has_its_own():
    def measure(alphas):
        target = 0.2 + np.abs(np.log(np.maximum(alphas, 1e-9) / 0.3)) / 100
        return np.stack([target, 0.7 - 0.2 * alphas], axis=1)

    found, choices = search_negation(measure, COARSE, [0.95, 0.5], rounds=3)
    strict, loose = choices
    # Control is 0.95 of 0.7 at alpha 0.175; the minimum itself keeps one half.
    assert 0.175 / 2 ** (1 / 8) <= strict.alpha <= 0.175
    assert abs(np.log2(loose.alpha / 0.3)) <= 1 / 4
    assert found.choice == strict and len(found.alphas) <= len(COARSE) + 2 * 3


def test_per_task_moves_each_alpha_towards_its_own_best():
    best = np.array([0.2, 0.4, 0.1])

    def measure(rows):
        return 0.9 - 0.1 * np.abs(np.log2(rows / best))

    alphas = search_per_task(measure, 0.2, np.ones(3), rounds=1)
    np.testing.assert_array_equal(alphas, [0.2, 0.4, 0.1])
    # What is best already stays, and 0 rounds change nothing.
    np.testing.assert_array_equal(search_per_task(measure, 0.3, np.ones(3), rounds=0), [0.3] * 3)
    assert 1.0 not in ALPHA_FACTORS


def test_flat_range_ends_where_a_worse_alpha_parts_it():
    alphas, mean = np.array([0.0, 1, 2, 3, 4, 5]), np.array([0.5, 0.795, 0.8, 0.79, 0.7, 0.8])
    assert flat_range(alphas, mean, 2, within=0.01) == (1.0, 3.0)
    assert flat_range(alphas, mean, 5, within=0.0) == (5.0, 5.0)
    assert flat_range(alphas, mean, 4, within=0.0) == (1.0, 5.0)
