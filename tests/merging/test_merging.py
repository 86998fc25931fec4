"""Each merger against its formula in NumPy, float64; what must hold for any of them."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orthoreg_jax as oj
from orthoreg_jax.arithmetic.paths import flatten, leaf_path
from orthoreg_jax.merging import MERGERS
from orthoreg_jax.merging.order_statistics import kth_magnitude

RULES = {"stack/*": oj.Matrix(), "conv": oj.Skip("a convolution"), "heads": oj.Matrix((0,), (1, 2))}
SHAPES = {
    "stack/kernel": (3, 6, 10),
    "row": (1, 7),
    "heads": (8, 2, 3),
    "conv": (2, 2, 3, 4),
    "bias": (9,),
}
MATRICES = ("stack/kernel", "row", "heads")
FEW = {"stack/kernel": (2, 6, 5), "bias": (9,)}


def vector(seed, dtype=jnp.float32, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    leaves = {path: jnp.asarray(rng.normal(size=shape), dtype) for path, shape in shapes.items()}
    stack = {"stack": {"kernel": leaves.pop("stack/kernel")}} if "stack/kernel" in leaves else {}
    return {**stack, **leaves}


def merge(vectors, merger, **options):
    if merger.random:
        options.setdefault("key", jax.random.key(0))
    return oj.merge_task_vectors(vectors, merger, matrices=RULES, **options)


def leaf(tree, path):
    node = tree
    for part in path.split("/"):
        node = node[part]
    return np.asarray(node.astype(jnp.float32) if node.dtype == jnp.bfloat16 else node, np.float64)


def tensors(path, values):
    """The (t, ...) tensors of a leaf, and what puts merged ones together again."""
    if path == "stack/kernel":
        return [values[:, layer] for layer in range(values.shape[1])], np.stack
    if path == "heads":
        return [values.reshape(len(values), 8, 6)], lambda parts: parts[0].reshape(8, 2, 3)
    return [values], lambda parts: parts[0]


def elected(kept, elect, combine):
    votes = kept if elect == "sum" else np.sign(kept)
    sign = np.sign(votes.sum(axis=0))
    agrees = (np.sign(kept) == sign) & (kept != 0)
    total = np.where(agrees, kept, 0).sum(axis=0)
    return total / np.maximum(agrees.sum(axis=0), 1) if combine == "mean" else total


def trimmed(values, k, size=None):
    """Rows of (t, d), each with its int(d k / 100) largest magnitudes."""
    rows = values.reshape(len(values), -1)
    count = max(1, int(rows.shape[1] * k / 100))
    limits = np.sort(np.abs(rows), axis=1)[:, -count]
    return np.where(np.abs(rows) >= limits[:, None], rows, 0).reshape(values.shape), limits


def banded(values, beta, gamma):
    rows = values.reshape(len(values), -1)
    size = rows.shape[1]
    small = min(int(size * beta), size - 1)
    large = min(int(size * (1 - gamma)), size - 1 - small)
    out = np.zeros_like(rows)
    for row, kept in zip(rows, out, strict=True):
        order = np.argsort(np.abs(row))[small : size - large]
        kept[order] = row[order]
    return out.reshape(values.shape)


def agreed(values, k, scale):
    total = values.sum(axis=0)
    masks = np.abs(values) >= scale * np.abs(total - values)
    return np.where(masks.sum(axis=0) >= k, total, 0)


def polar(matrix):
    left, scale, right = np.linalg.svd(matrix, full_matrices=False)
    return left[:, scale > 1e-5] @ right[scale > 1e-5]


def tsv_oracle(values, rank=0):
    rank = rank or max(1, min(values.shape[1:]) // len(values))
    triples = [np.linalg.svd(value, full_matrices=False) for value in values]
    left = np.concatenate([u[:, :rank] for u, _, _ in triples], axis=1)
    scale = np.concatenate([s[:rank] for _, s, _ in triples])
    right = np.concatenate([v[:rank] for _, _, v in triples])
    return polar(left) @ np.diag(scale) @ polar(right)


def iso_c_oracle(values):
    left, scale, right = np.linalg.svd(values.sum(axis=0), full_matrices=False)
    return scale.mean() * left @ right


def iso_cts_oracle(values, fraction=0.8):
    tasks, side = len(values), min(values.shape[1:])
    own = round((side - int(side * fraction)) / tasks)
    own = min(own, side // tasks)
    common = side - tasks * own
    u, s, v = (p for p in np.linalg.svd(values.sum(axis=0), full_matrices=False))
    lefts, scales, rights = [u[:, :common]], [s[:common]], [v[:common]]
    for value in values:
        u, s, v = np.linalg.svd(value - value @ rights[0].T @ rights[0], full_matrices=False)
        lefts.append(u[:, :own]), scales.append(s[:own]), rights.append(v[:own])
    scale = np.concatenate(scales).mean()
    return scale * polar(np.concatenate(lefts, axis=1)) @ polar(np.concatenate(rights))


def whole_vector_ties(rows, k, elect, combine):
    """Trimmed over all leaves at once."""
    flat = {path: np.stack([leaf(row, path) for row in rows]) for path in SHAPES}
    joined = np.concatenate([v.reshape(len(rows), -1) for v in flat.values()], axis=1)
    _, limits = trimmed(joined, k)
    result = {}
    for path, values in flat.items():
        limit = limits.reshape(-1, *[1] * (values.ndim - 1))
        kept = np.where(np.abs(values) >= limit, values, 0)
        result[path] = elected(kept, elect, combine)
    return result


def by_tensor(rows, formula, others=None):
    """Each tensor by a formula; with `others`, leaves that are no matrices by that one."""
    result = {}
    for path in SHAPES:
        values = np.stack([leaf(row, path) for row in rows])
        parts, join = tensors(path, values)
        own = formula if others is None or path in MATRICES else others
        result[path] = join([own(part) for part in parts])
    return result


def mean(values):
    return values.mean(axis=0)


def ties_of_tensors(values):
    return elected(trimmed(values, 40)[0], "count", "mean")


CASES = {
    "average": (oj.average(), lambda rows: by_tensor(rows, mean)),
    "task_arithmetic": (
        oj.task_arithmetic(),
        lambda rows: by_tensor(rows, lambda v: v.sum(axis=0)),
    ),
    "ties": (oj.ties(), lambda rows: whole_vector_ties(rows, 20, "sum", "mean")),
    "ties, sum": (
        oj.ties(35, combine="sum"),
        lambda rows: whole_vector_ties(rows, 35, "sum", "sum"),
    ),
    "ties, tensors and counts": (
        oj.ties(40, over="tensor", elect="count"),
        lambda rows: by_tensor(rows, ties_of_tensors),
    ),
    "breadcrumbs": (
        oj.breadcrumbs(0.5, 0.9),
        lambda rows: by_tensor(rows, lambda v: banded(v, 0.5, 0.9).sum(axis=0)),
    ),
    "consensus": (oj.consensus(), lambda rows: by_tensor(rows, lambda v: agreed(v, 2, 0.4))),
    "consensus of 3": (
        oj.consensus(3, 0.2),
        lambda rows: by_tensor(rows, lambda v: agreed(v, 3, 0.2)),
    ),
    "tsv_m": (oj.tsv_m(), lambda rows: by_tensor(rows, tsv_oracle, mean)),
    "tsv_m of rank 1": (
        oj.tsv_m(1),
        lambda rows: by_tensor(rows, functools.partial(tsv_oracle, rank=1), mean),
    ),
    "iso_c": (oj.iso_c(), lambda rows: by_tensor(rows, iso_c_oracle, mean)),
    "iso_cts": (
        oj.iso_cts(0.5),
        lambda rows: by_tensor(rows, functools.partial(iso_cts_oracle, fraction=0.5), mean),
    ),
    "iso_cts of no common space": (
        oj.iso_cts(0),
        lambda rows: by_tensor(rows, functools.partial(iso_cts_oracle, fraction=0), mean),
    ),
}


# Compiling takes nearly all of the time: the formulas hold in float64, other types do as one does.
@pytest.mark.parametrize(
    "case, dtype, tasks",
    [
        *((case, "float64", 3) for case in CASES),
        *((case, "float32", 5) for case in ("ties", "tsv_m", "iso_cts")),
        *((case, "bfloat16", 2) for case in ("ties", "consensus", "iso_c")),
        *((case, "float32", 1) for case in ("ties", "iso_cts")),
    ],
)
def test_formulas(case, dtype, tasks):
    merger, oracle = CASES[case]
    with jax.enable_x64(dtype == "float64"):
        rows = [vector(seed, dtype) for seed in range(tasks)]
        found, expected = merge(rows, merger), oracle(rows)
        assert jax.tree.structure(found) == jax.tree.structure(rows[0])
        tolerance = {"float32": 2e-5, "bfloat16": 2e-2, "float64": 1e-11}[dtype]
        for path in SHAPES:
            theirs = expected[path]

            np.testing.assert_allclose(
                leaf(found, path), theirs, atol=tolerance * max(1, np.abs(theirs).max())
            )
        assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("p", [0.3, 0.75])
def test_dare_drops_and_rescales(p):
    rows = [{"w": jnp.full((200, 100), scale)} for scale in (1.0, -10.0)]
    merged = np.asarray(merge(rows, oj.dare(p))["w"]) * (1 - p)
    values, counts = np.unique(np.round(merged, 3), return_counts=True)
    np.testing.assert_allclose(values, [-10, -9, 0, 1], atol=1e-3)  # drawn for each task alone
    shares = [(1 - p) * p, (1 - p) ** 2, p * p, p * (1 - p)]
    np.testing.assert_allclose(counts / merged.size, shares, atol=0.015)


def test_dare_ties_elects_among_what_is_left():
    rows = [{"w": jnp.full((100, 100), scale)} for scale in (1.0, 2.0, -4.0)]
    merged = 0.5 * np.asarray(merge(rows, oj.dare_ties(0.5))["w"])
    # Sums of what stays: -4 wins whenever it is there (1 + 2 < 4); else the mean of the others.
    values, counts = np.unique(np.round(merged, 3), return_counts=True)
    np.testing.assert_allclose(values, [-4, 0, 1, 1.5, 2], atol=1e-3)
    np.testing.assert_allclose(counts / merged.size, [1 / 2, *[1 / 8] * 4], atol=0.02)


def test_draws_follow_key_leaf_and_layer():
    tree = {"a": jnp.ones((2, 4, 50)), "b": jnp.ones((4, 50))}
    draw = functools.partial(oj.merge_task_vectors, [tree], oj.dare(0.5))
    one, same, other = (draw(key=jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one["a"], same["a"])
    for left, right in [
        (one["a"], other["a"]),
        (one["a"][0], one["a"][1]),
        (one["a"][0], one["b"]),
    ]:
        assert 0.3 < np.mean(np.asarray(left) != np.asarray(right)) < 0.7


# Ahead of the check of types that the tests put on every function.
unchecked_merge = inspect.unwrap(oj.merge_task_vectors)
KTH = jax.jit(kth_magnitude, static_argnames="k")
EVERY = {name: make(**({"p": 0.5} if "dare" in name else {})) for name, make in MERGERS.items()}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("bad", [jnp.nan, -jnp.inf])
@pytest.mark.parametrize("path", FEW)
def test_what_is_not_finite_is_never_merged_away(name, bad, path):
    rows = [vector(seed, shapes=FEW) for seed in range(EVERY[name].at_most or 3)]
    worse = jax.tree.map_with_path(
        lambda key, leaf: leaf.at[(0,) * leaf.ndim].set(bad) if leaf_path(key) == path else leaf,
        rows[1],
    )
    merged = functools.partial(merge, merger=EVERY[name])
    found = flatten(merged([rows[0], worse, *rows[2:]]))
    clean = flatten(merged(rows))
    assert np.isnan(found[path][(0,) * found[path].ndim])
    whole = name in ("ties", "pcb") and np.isnan(bad)
    for other in set(found) - {path}:
        if whole:
            assert np.isnan(found[other]).all()
        elif name not in ("ties", "pcb"):  # whose cutoff is another one
            np.testing.assert_array_equal(found[other], clean[other])


@pytest.mark.parametrize("name", EVERY)
def test_zero_vectors_give_zero(name):
    zero = jax.tree.map(jnp.zeros_like, vector(0, shapes=FEW))
    for found in jax.tree.leaves(merge([zero, zero], EVERY[name])):
        np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize("name", ["task_arithmetic", "tsv_m", "iso_c"])
def test_a_zero_vector_beside_others_points_nowhere(name):
    """Its singular vectors are arbitrary and may not turn those of the others."""
    shapes = {"w": (8, 8)}
    one = vector(1, shapes=shapes)
    merger = oj.tsv_m(4) if name == "tsv_m" else EVERY[name]
    zero = jax.tree.map(jnp.zeros_like, one)
    alone, beside = (
        oj.merge_task_vectors(vectors, merger)["w"] for vectors in ([one], [one, zero])
    )
    np.testing.assert_allclose(alone, beside, atol=1e-5)


def test_one_task_stays_as_it_is():
    one = vector(3, shapes=FEW)
    for merger in (oj.average(), oj.task_arithmetic(), oj.ties(100), oj.dare(0), oj.tsv_m(),
                   oj.breadcrumbs(0, 1), oj.consensus(1), oj.dare_ties(0)):  # fmt: skip
        for a, b in zip(jax.tree.leaves(merge([one], merger)), jax.tree.leaves(one), strict=True):
            np.testing.assert_allclose(a, b, atol=3e-6)


def test_isotropic_means_equal_singular_values_of_those_that_are_there():
    low = jnp.asarray(np.random.default_rng(0).normal(size=(20, 2)), jnp.float32)
    rows = [{"w": jnp.outer(low[:, t], low[::2, t])} for t in (0, 1)]  # rank 1 each, 20 x 10
    for merger in (oj.iso_c(), oj.iso_cts(0.9)):
        values = np.linalg.svd(oj.merge_task_vectors(rows, merger)["w"], compute_uv=False)
        np.testing.assert_allclose(values[:2], values[0], rtol=1e-4)
        assert values[2] < 1e-4 * values[0]


def test_orthogonal_tasks_are_merely_added_by_tsv_m():
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    rows = [
        {"w": jnp.asarray(basis[:, s] @ np.diag([3.0, 2, 1, 0.5]) @ basis[:, s].T, jnp.float32)}
        for s in (slice(0, 4), slice(4, 8))
    ]
    np.testing.assert_allclose(
        oj.merge_task_vectors(rows, oj.tsv_m())["w"], rows[0]["w"] + rows[1]["w"], atol=1e-5
    )


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from([name for name in EVERY if "dare" not in name and name != "pcb"]),
    order=st.permutations(range(4)),
    scale=st.sampled_from([1e-4, 0.1, 7.0]),
)
def test_order_does_not_matter_and_scale_goes_through(name, order, scale):
    rows = [vector(seed, shapes=FEW) for seed in range(EVERY[name].at_most or 4)]
    base = merge(rows, EVERY[name])
    turned = merge({str(t): rows[t] for t in order if t < len(rows)}, EVERY[name])
    scaled = merge([jax.tree.map(lambda x: x * scale, row) for row in rows], EVERY[name])
    for a, b, c in zip(*map(jax.tree.leaves, (base, turned, scaled)), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-5)
        np.testing.assert_allclose(scale * a, c, atol=3e-5 * scale)


SPECTRAL_NAMES = ("tsv_m", "iso_c", "iso_cts", "wudi", "cart", "dc_merge")
SPECTRAL = {name: EVERY[name] for name in SPECTRAL_NAMES}


@pytest.mark.parametrize("name", SPECTRAL)
def test_traced_and_on_the_host_are_one(name):
    rows = [vector(seed) for seed in range(3)]
    found = jax.jit(lambda rows: merge(rows, EVERY[name]))(rows)
    for a, b in zip(*map(jax.tree.leaves, (found, merge(rows, EVERY[name]))), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("name", SPECTRAL)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scales_near_the_ends_of_float32(name, scale):
    rows = [vector(seed) for seed in range(3)]
    base = merge(rows, EVERY[name])
    found = merge([jax.tree.map(lambda leaf: leaf * scale, row) for row in rows], EVERY[name])
    for a, b in zip(*map(jax.tree.leaves, (base, found)), strict=True):
        np.testing.assert_allclose(a, np.asarray(b, np.float64) / scale, atol=2e-5)


@pytest.mark.parametrize("name", EVERY)
def test_leaves_of_no_entries_stay(name):
    tree = {"none": jnp.zeros((0, 4)), "no rows": jnp.zeros((2, 0, 3)), "one": jnp.ones((1, 1))}
    rules = {"no rows": oj.Matrix()}
    options = {"key": jax.random.key(0)} if EVERY[name].random else {}
    merge = functools.partial(oj.merge_task_vectors, merger=EVERY[name], matrices=rules, **options)
    for found in (merge([tree, tree]), jax.jit(merge)([tree, tree])):
        assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, tree)


FLOATS = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


@settings(max_examples=40, deadline=None)
@given(st.lists(FLOATS, min_size=7, max_size=7), st.sampled_from([1, 4, 7]))
def test_kth_magnitude_is_exact(entries, k):
    values = np.array(entries, np.float32)
    parts = [jnp.asarray(values[:2]), jnp.asarray(values[2:])]
    assert float(KTH(parts, k)) == np.sort(np.abs(values))[-k]


def test_kth_magnitude_of_infinities_and_doubles():
    assert kth_magnitude([jnp.array([jnp.inf, 1.0])], 1) == jnp.inf
    with jax.enable_x64(True):
        values = jnp.array([1.0, 1 + 1e-15, -(1 + 2e-15)])
        assert kth_magnitude([values], 2) == 1 + 1e-15


def test_equal_mergers_are_one_value_and_compiled_once():
    assert oj.ties(k=30) == oj.ties(30.0) != oj.ties(k=31)
    assert hash(oj.iso_cts(0.5)) == hash(oj.iso_cts(0.5))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: oj.ties(0), "ties: k is 0; give per cent"),
        (lambda: oj.ties(101), "k is 101"),
        (lambda: oj.ties(over="layer"), "over is 'layer'; allowed: 'vector', 'tensor'"),
        (lambda: oj.ties(elect="vote"), "elect is 'vote'; allowed"),
        (lambda: oj.ties(combine="max"), "combine is 'max'; allowed"),
        (
            lambda: oj.dare(1),
            "dare: p is 1; give the probability.*1 minus what other programs call density",
        ),
        (lambda: oj.dare_ties(-0.1), "dare_ties: p is -0.1"),
        (lambda: oj.breadcrumbs(0.9, 0.9), "beta is 0.9; give fractions 0 <= beta < gamma"),
        (lambda: oj.consensus(-1), "k is -1; give a whole number"),
        (lambda: oj.consensus(lambda_=-1), "lambda_ is -1"),
        (lambda: oj.tsv_m(-1), "rank is -1"),
        (lambda: oj.iso_cts(1.2), "common_space_fraction is 1.2; give a fraction from 0 to 1"),
        (lambda: oj.merge_task_vectors([], oj.average()), "vectors contains no task vector; give"),
        (
            lambda: oj.merge_task_vectors([{"w": jnp.ones(2)}, {"v": jnp.ones(2)}], oj.ties()),
            r"only in vectors\[1\]: v",
        ),
        (lambda: oj.merge_task_vectors([{"w": jnp.ones(2)}], oj.dare()), "give key="),
        (
            lambda: oj.merge_task_vectors([{"n": jnp.ones(2, jnp.int32)}], oj.average()),
            r"vectors\[0\]: 1 leaves are not floating point \(first: 'n', int32\).*; leave them",
        ),
        (
            lambda: oj.merge_task_vectors([{"w": jnp.ones(2, jnp.complex64)}], oj.average()),
            "first: 'w'\\); weights must be real",
        ),
        (
            lambda: unchecked_merge([{"w": jnp.ones(2)}], "tsv_m"),
            "merger is 'tsv_m', a str.*as oj.tsv_m",
        ),
        (lambda: unchecked_merge([{"w": jnp.ones(2)}], oj.ties), "merger is ties.*as oj.ties"),
        (
            lambda: oj.merge_task_vectors(
                [{"lora_a": jnp.ones((4, 2)), "lora_b": jnp.ones((2, 4))}],
                oj.iso_c(),
                matrices={"": oj.Adapter("lora_a", "lora_b")},
            ),
            "factors cannot be merged separately",
        ),
        (
            lambda: oj.merge_task_vectors([{"w": jnp.ones(2)}], oj.ties(), key=jax.random.key(0)),
            "leave out the key",
        ),
        (
            lambda: oj.merge_task_vectors([{"w": jnp.ones((2, 3, 4))}], oj.iso_c()),
            "leaf 'w' of shape .* has no rule",
        ),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", SPECTRAL)
def test_in_a_trace_a_matrix_that_is_not_finite_gives_nan(name):
    rows = [
        {"w": jnp.ones((2, 3)), "v": jnp.eye(2)},
        {"w": jnp.full((2, 3), jnp.inf), "v": jnp.eye(2)},
    ]
    found = jax.jit(lambda rows: oj.merge_task_vectors(rows, SPECTRAL[name]))(rows)
    assert jnp.isnan(found["w"]).all() and jnp.isfinite(found["v"]).all()


@pytest.mark.parametrize("size", [2**16 - 1, 2**16, 2 * 2**16 + 7])
def test_blocks_of_entries_make_up_the_leaf(size):
    rows = [{"w": jnp.asarray(np.random.default_rng(t).normal(size=size))} for t in range(3)]
    found = oj.merge_task_vectors(rows, oj.ties(30))["w"]
    values = np.stack([np.asarray(row["w"], np.float64) for row in rows])
    np.testing.assert_allclose(found, elected(trimmed(values, 30)[0], "sum", "mean"), atol=1e-6)
    drawn = np.asarray(merge([{"w": jnp.ones(size)}], oj.dare(0.5))["w"])
    assert {*np.unique(drawn)} == {0, 2} and abs(drawn.mean() - 1) < 0.02
    if size > 2**17:  # each block has a draw of its own
        assert 0.45 < np.mean(drawn[: 2**16] != drawn[2**16 : 2**17]) < 0.55


def test_entries_need_no_rules():
    tree = {"w": jnp.ones((2, 3, 4))}
    np.testing.assert_array_equal(oj.merge_task_vectors([tree, tree], oj.ties())["w"], 1.0)


def test_mergers_are_shown_as_the_calls_that_make_them():
    assert repr(oj.ties(30)) == "ties(k=30, over='vector', elect='sum', combine='mean')"
    assert repr(oj.average()) == "average()"
    assert repr(oj.consensus(k=3)) == "consensus(k=3, lambda_=0.4)"
    # Which is no part of what they are.
    assert oj.ties(30) == oj.ties(k=30.0) and hash(oj.ties(30)) == hash(oj.ties(k=30.0))


def test_sums_of_many_small_numbers_are_taken_in_float32():
    rows = [{"w": jnp.full(3, 0.001, jnp.bfloat16)}] * 1000
    for merged in (oj.add_task_vectors(rows), oj.merge_task_vectors(rows, oj.task_arithmetic())):
        assert merged["w"].dtype == jnp.bfloat16
        np.testing.assert_allclose(np.float32(merged["w"]), 1.0, rtol=5e-3)


@pytest.mark.parametrize(
    "merger",
    [oj.ties(30, over="tensor"), oj.breadcrumbs(0.5, 0.9), oj.slerp(0.3), oj.model_stock()],
)
def test_vectors_of_stacked_layers_are_tensors_of_their_own(merger):
    """As in a model whose layers are not stacked, with which published programs work."""
    rng = np.random.default_rng(2)
    rows = [
        {"kernel": jnp.asarray(rng.normal(size=(3, 8, 16)), jnp.float32),
         "bias": jnp.asarray(rng.normal(size=(3, 16)), jnp.float32)}
        for _ in range(2)
    ]  # fmt: skip
    rules = {"kernel": oj.Matrix(), "bias": oj.Skip("biases", stacked=True)}
    found = oj.merge_task_vectors(rows, merger, matrices=rules)
    apart = [
        {f"{name}{layer}": leaf[layer] for name, leaf in row.items() for layer in range(3)}
        for row in rows
    ]
    expected = oj.merge_task_vectors(apart, merger)
    for name, leaf in found.items():
        for layer in range(3):
            np.testing.assert_allclose(leaf[layer], expected[f"{name}{layer}"], rtol=1e-6)
    together = oj.merge_task_vectors(rows, merger, matrices=rules | {"bias": oj.Skip("biases")})
    assert np.abs(together["bias"] - found["bias"]).max() > 1e-3
