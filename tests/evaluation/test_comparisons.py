import numpy as np
import pytest

from orthoreg_jax.evaluation.comparisons import compare_methods


def answers(rng, seeds, accuracy):
    """Right or wrong on two tasks of 40 and 60 images and a control of 50."""
    sizes = {"a": 40, "b": 60}
    return [
        {
            f"{kind}/{task}": rng.random(50 if kind.startswith("control") else size) < accuracy
            for kind in ("single", "added", "negated/0.95", "control/0.95")
            for task, size in sizes.items()
        }
        for _ in range(seeds)
    ]


@pytest.fixture
def compared():
    rng = np.random.default_rng(0)
    zero_shot = {"a": rng.random(40) < 0.3, "b": rng.random(60) < 0.3, "control": np.ones(50, bool)}
    plain, other = answers(rng, 2, 0.6), answers(rng, 2, 0.7)
    methods = {"full": plain, "full+orthoreg": other, "full+orthoreg+tak": other, "lora": plain}
    found = {
        (each["baseline"], each["method"], each["measure"]): each
        for each in compare_methods(zero_shot, methods, [0.95])
    }
    return zero_shot, plain, other, found


def test_pairs_and_zero_shot_are_compared(compared):
    *_, found = compared
    pairs = {key[:2] for key in found}
    assert pairs == {
        ("zero-shot", "full"), ("zero-shot", "full+orthoreg"), ("zero-shot", "lora"),
        ("full", "full+orthoreg"), ("full", "full+orthoreg+tak"),
        ("zero-shot", "full+orthoreg+tak"),
    }  # fmt: skip
    assert {key[2] for key in found} == {"single", "added", "negated/0.95", "control/0.95"}


def test_difference_is_that_of_the_means(compared):
    zero_shot, plain, other, found = compared

    def mean(method, kind, seed):
        return np.mean([method[seed][f"{kind}/{task}"].mean() for task in "ab"])

    for kind in ("single", "added", "negated/0.95", "control/0.95"):
        by_seed = [mean(other, kind, seed) - mean(plain, kind, seed) for seed in (0, 1)]
        each = found["full", "full+orthoreg", kind]
        assert each["difference"] == pytest.approx(np.mean(by_seed))
        assert each["deviation"] == pytest.approx(np.std(by_seed, ddof=1))
        assert each["low"] < each["difference"] < each["high"]
    gain = np.mean([mean(plain, "added", seed) for seed in (0, 1)])
    gain -= np.mean([zero_shot[task].mean() for task in "ab"])
    assert found["zero-shot", "full", "added"]["difference"] == pytest.approx(gain)
    lost = np.mean([mean(plain, "control/0.95", seed) for seed in (0, 1)]) - 1
    assert found["zero-shot", "full", "control/0.95"]["difference"] == pytest.approx(lost)


def test_control_images_count_once(compared):
    """Two negated models on the same 50 images are no 100 images."""
    zero_shot, *_ = compared
    right = np.arange(50) < 25
    one = {f"{kind}/a": right for kind in ("single", "added", "negated/0.95", "control/0.95")}
    two = one | {f"{kind.rpartition('/')[0]}/b": value for kind, value in one.items()}
    before = {"a": np.ones(50, bool), "b": np.ones(50, bool), "control": np.ones(50, bool)}
    widths = []
    for correct in (one, two):
        found = compare_methods(before, {"full": [correct]}, [0.95])
        (each,) = (item for item in found if item["measure"] == "control/0.95")
        widths.append(each["high"] - each["low"])
        assert each["deviation"] is None
    assert widths[0] == pytest.approx(widths[1])
