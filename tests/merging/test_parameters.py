"""Every parameter of every merger, its unit, and values that mean something else elsewhere."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

import orthoreg_jax as oj
from orthoreg_jax.merging import MERGERS, make_merger
from orthoreg_jax.merging.files import merge_files
from orthoreg_jax.merging.parameters import ELSEWHERE

FITTED = {"fisher": oj.fisher, "regmean": oj.regmean, "adamerging": oj.adamerging}
# As users have them: tests check types ahead of what the functions say of wrong ones.
ALL = {name: inspect.unwrap(make) for name, make in (MERGERS | FITTED).items()}
GIVEN = {"vectors", "fishers", "grams", "loss", "batches", "matrices"}  # what they work on
W = {"w": jnp.ones(2)}

# (merger, parameter): what its docstring calls the unit; values refused, and what is said of them.
UNITS = {
    ("ties", "k"): (
        "per cent of entries kept",
        {
            0.2: "ties: k is 0.2; give per cent of entries kept.* for the fraction 0.2, k=20",
            1.0: "k is 1.0; .* for the fraction 1, k=100",
            0: "k is 0; give per cent",
            101: "k is 101",
            "20": "k is '20'",
        },
    ),
    ("ties", "over"): ('"vector" or "tensor"', {"layer": "allowed: 'vector', 'tensor'"}),
    ("ties", "elect"): ('"sum" of values', {"total": "allowed: 'sum', 'count'"}),
    ("ties", "combine"): ("or their", {"dis-mean": "allowed: 'mean', 'sum'"}),
    ("dare", "p"): (
        "probability that an entry is dropped",
        {
            90: "p is 90; give the probability that an entry is dropped.* 0.9 for 90 %",
            1: "p is 1; .* 1 minus what other programs call density",
            -0.1: "p is -0.1",
        },
    ),
    ("dare_ties", "p"): ("as for `dare`", {90: "0.9 for 90 %", 1.0: "1 minus what other programs"}),
    ("dare_ties", "elect"): ("as for `ties`", {"frequency": "allowed: 'sum', 'count'"}),
    ("dare_ties", "combine"): ("as for `ties`", {"max": "allowed: 'mean', 'sum'"}),
    ("breadcrumbs", "beta"): (
        "fraction of small entries left out",
        {
            85: "beta is 85.*give fractions",
            0.993: "beta is 0.993; give fractions 0 <= beta < gamma",
        },
    ),
    ("breadcrumbs", "gamma"): (
        "1 minus the fraction of outliers left out",
        {
            0.01: "gamma is 0.01; .* From mergekit's density and gamma, .* gamma = 1 - gamma",
            0.006: "gamma is 0.006; .* the authors' code",
            99.3: "gamma is 99.3; give fractions",
        },
    ),
    ("consensus", "k"): (
        "tasks that must need an entry",
        {2.0: "k is 2.0; give a whole number of tasks", 0.2: "as an int", True: "k is True"},
    ),
    ("consensus", "lambda_"): ("how large a task's entry", {np.inf: "give a number from 0"}),
    ("tsv_m", "rank"): (
        "singular values kept for each task, an int",
        {
            1.0: r"rank is 1.0; give the number .*for a fraction s .* int\(s \* min\(m, n\)\)",
            0.125: "rank is 0.125",
            -1: "rank is -1",
        },
    ),
    ("iso_cts", "common_space_fraction"): ("a fraction from 0 to 1", {80: "80; .* 0.8 for 80 %"}),
    ("pcb", "fraction"): (
        "of each task's entries",
        {10: "pcb: fraction is 10; .* 0.1 for 10 %", 0: "fraction is 0"},
    ),
    ("slerp", "t"): ("fraction of the way", {50: "t is 50; give a fraction of the way, from 0"}),
    ("wudi", "steps"): (
        "of Adam, an int",
        {-1: "steps is -1", 3e2: "steps is 300.0; .* as an int"},
    ),
    ("wudi", "learning_rate"): ("in units of the weights", {-1e-5: "learning_rate is -1e-05"}),
    ("cart", "fraction"): (
        "of each distance's singular values to keep",
        {8: "cart: fraction is 8; .* 0.12 for 12 %", 0: "fraction is 0"},
    ),
    ("cart", "lambda_"): (
        "factor of the sum of the distances",
        {-1: "lambda_ is -1; give a number from 0"},
    ),
    ("dc_merge", "rank"): ("singular values kept of each task, an int", {0.125: "rank is 0.125"}),
    ("dc_merge", "rho"): (
        "0: singular values as they are; 1: all equal",
        {0.2: "rho is 0.2; give 0 .as they are., 1 .all equal.", -1: "rho is -1"},
    ),
    ("dc_merge", "fraction"): (
        "of each M_t's entries to keep",
        {0.0: "fraction is 0.0; .* 0.001 for 0.1 %", 10: "fraction is 10"},
    ),
    ("regmean", "alpha"): (
        "the paper's alpha",
        {-1.0: r"alpha is -1.0; give the factor for .* \(1 leaves them", 90: "alpha is 90"},
    ),
    ("adamerging", "steps"): ("of Adam, an int", {-1: "steps is -1", 5e2: "steps is 500.0"}),
    ("adamerging", "learning_rate"): ("Adam's learning rate", {-1e-3: "learning_rate is -0.001"}),
    ("adamerging", "initial"): ("from 0 to 1", {30: "initial is 30; give a lambda from 0 to 1"}),
}
REFUSED = [(*key, value, said) for key, (_, refused) in UNITS.items() for value, said in
           refused.items()]  # fmt: skip


def call(name, **options):
    if name == "regmean":
        return ALL[name]([W], [{}], **options)
    if name == "adamerging":
        return ALL[name]([W], lambda tau, _: tau["w"][0], [jnp.ones(())], **options)
    return ALL[name](**options)


def parameters(make):
    return set(inspect.signature(make).parameters) - GIVEN


def test_every_parameter_is_in_the_table():
    found = {(name, each) for name, make in ALL.items() for each in parameters(make)}
    assert found == set(UNITS)


@pytest.mark.parametrize("merger, name", UNITS)
def test_its_docstring_says_the_unit(merger, name):
    text = " ".join(inspect.getdoc(ALL[merger]).split())
    arguments = text[text.index("Args:") :]
    own = arguments[arguments.index(f"{name}: ") :]
    assert any(unit in own for unit in UNITS[merger, name][0].split("|"))


@pytest.mark.parametrize("merger, name, value, said", REFUSED)
def test_another_unit_is_refused(merger, name, value, said):
    with pytest.raises(ValueError, match=f"{name} is .*{said}" if "is" not in said else said):
        call(merger, **{name: value})


@pytest.mark.parametrize("value", [2, np.int64(2)])
def test_integers_of_any_kind_count(value):
    for name in ("tsv_m", "consensus"):
        assert ALL[name](value) == ALL[name](2) != ALL[name](3)


@pytest.mark.parametrize(
    "merger, option, said",
    [
        ("tsv_m", ("rank", "1.0"), "rank is 1.0; give the number of singular values"),
        ("ties", ("k", "1"), "k is 1.0; .* for the fraction 1, k=100"),
        ("consensus", ("k", "0.5"), "k is 0.5; give a whole number"),
        ("tsv_m", ("rank", "full"), "rank=full is not a number; give one, for example rank=0"),
        *(("average", (name, "1"), f"no parameter '{name}' ") for name in ELSEWHERE),
    ],
)
def test_of_a_command_line_too(merger, option, said, monkeypatch):
    monkeypatch.setitem(MERGERS, merger, ALL[merger])
    with pytest.raises(ValueError, match=said):
        make_merger(merger, dict([option]))


def test_consensus_of_more_tasks_than_there_are_leaves_nothing(tmp_path):
    said = "consensus.k=100, lambda_=0.4. keeps .* 100 tasks need, but there are 2 .* from 0 to 2"
    with pytest.raises(ValueError, match=said):
        oj.merge_task_vectors([W, W], oj.consensus(100))
    files = [tmp_path / name for name in "ab"]
    for file in files:
        oj.save_tree(file, W)
    with pytest.raises(ValueError, match=said):
        merge_files(files, oj.consensus(100))
    np.testing.assert_array_equal(oj.merge_task_vectors([W, W], oj.consensus(2))["w"], [2, 2])
