"""What cannot be a task vector, several of them, or a scale is refused by all who take one."""

import fractions
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import orthoreg_jax as oj
from orthoreg_jax.arithmetic.checks import check_scales
from orthoreg_jax.arithmetic.paths import briefly

W, V = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([3.0, 4.0])}

# Without the tests' own check of types, which is not there for users.
apply, merge, add, match, fisher, regmean, adamerging, cosines = map(
    inspect.unwrap,
    (oj.apply_task_vector, oj.merge_task_vectors, oj.add_task_vectors, oj.match_norms, oj.fisher,
     oj.regmean, oj.adamerging, oj.cosine_matrix),
)  # fmt: skip

# Every public function of one task vector, and of several.
ONE = {
    "apply": lambda vector: apply(vector, vector, 0.5),
    "negate": oj.negate_task_vector,
    "norm": oj.norm,
    "analogy": lambda vector: oj.analogy(vector, vector, vector),
}
SEVERAL = {
    "add": add,
    "cosines": cosines,
    "merge": lambda vectors: merge(vectors, oj.ties()),
    "spectral": lambda vectors: merge(vectors, oj.tsv_m()),
    "match_norms": match,
    "fisher": lambda vectors: fisher(vectors, vectors),
    "regmean": lambda vectors: regmean(
        vectors, dict.fromkeys(vectors, {}) if isinstance(vectors, dict) else [{}, {}]
    ),
    "adamerging": lambda vectors: adamerging(vectors, lambda *_: 0.0, [0], steps=0),
}
EVERY = {**ONE, **{name: lambda v, f=f: f([v, v]) for name, f in SEVERAL.items()}}
every = pytest.mark.parametrize("function", EVERY.values(), ids=EVERY)
several = pytest.mark.parametrize("function", SEVERAL.values(), ids=SEVERAL)


def tower(scale):
    """A CLIP's image tower, as far as it tells a model from a difference."""
    norm = {"scale": jnp.full(4, scale), "bias": jnp.zeros(4)}
    return {"blocks": {"kernel": jnp.ones((3, 4))}, "pre_norm": norm, "post_norm": norm}


@pytest.mark.parametrize("scale", [0.5, 2, np.float32(0.5), np.array(0.5), jnp.array(0.5),
                                   jnp.bfloat16(0.5), -1, 0])  # fmt: skip
def test_scales_of_any_kind_of_number(scale):
    found = apply(W, V, scale)["w"]
    np.testing.assert_allclose(found, np.array([1, 2]) + float(scale) * np.array([3, 4]))


@pytest.mark.parametrize(
    "scale", [[0.1, 0.2], "0.3", True, np.True_, np.array([0.5]), jnp.array([0.5]), np.nan, np.inf,
              jnp.array(jnp.nan), None, 1j, {}, 10**400, fractions.Fraction(1, 2)],
)  # fmt: skip
def test_other_scales_are_refused(scale):
    with pytest.raises(ValueError, match="scale is .*; give one finite number, such as 0.3"):
        apply(W, V, scale)


def test_scales_and_vectors_may_be_traced():
    expected = [[1.0, 2.0], [2.5, 4.0], [4.0, 6.0]]
    scales = jnp.array([0.0, 0.5, 1.0])

    def scaled(scale):
        return apply(W, V, scale)["w"]

    np.testing.assert_allclose(jax.vmap(scaled)(scales), expected)
    np.testing.assert_allclose([jax.jit(scaled)(scale) for scale in (0, 0.5, scales[2])], expected)
    np.testing.assert_allclose(jax.grad(lambda scale: scaled(scale).sum())(0.3), 7.0)
    for function in (*ONE.values(), lambda v: merge([v, W], oj.ties())):
        wanted, found = function(V), jax.jit(function)(V)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted)
    model = {"visual": tower(1.0)}  # its numbers are not known while it is traced
    jax.jit(oj.norm)(model)
    with pytest.raises(ValueError, match="scale is "):
        jax.jit(scaled)(scales)


@pytest.mark.parametrize("scales", [[1.0, 2], (0.5,), np.ones(3), jnp.ones(2), [np.float32(1)]])
def test_sequences_of_scales(scales):
    check_scales(scales)
    jax.jit(lambda values: check_scales(values))(jnp.asarray(scales))


@pytest.mark.parametrize("scales", [0.3, "12", [np.nan], [True], ["1"], np.ones((2, 2)), None, {0},
                                    np.array([np.inf])])  # fmt: skip
def test_other_sequences_are_refused(scales):
    with pytest.raises(ValueError, match="scales( is|: contains) .*; give .*finite numbers"):
        check_scales(scales)


@every
@pytest.mark.parametrize("leaf", [jnp.array([1, 2]), np.array([1], np.uint8), np.array([True]), 3])
def test_leaves_that_are_not_floating_point_are_refused(function, leaf):
    with pytest.raises(
        ValueError, match=r"1 leaves are not floating point \(first: 'n', (u?int|b)"
    ):
        function({"n": leaf, "w": jnp.ones(2)})


@every
@pytest.mark.parametrize("leaf", ["hello", None.__class__, object()])
def test_leaves_that_are_no_arrays_are_refused(function, leaf):
    with pytest.raises(ValueError, match=r"1 leaves are not arrays \(first: 'w'"):
        function({"w": leaf})


def test_tensors_of_other_libraries_are_no_arrays():
    class Tensor:
        dtype, shape = "torch.float32", (2,)

    with pytest.raises(ValueError, match="first: 'w', a Tensor"):
        oj.norm({"w": Tensor()})


def test_differences_of_integers_are_refused_by_name():
    one, two = ({"n": np.array([n], np.uint8)} for n in (1, 2))
    with pytest.raises(ValueError, match=r"finetuned: 1 leaves .* \(first: 'n', uint8\).*leave"):
        oj.task_vector(one, two)
    # Weights may have them, as long as they are not edited.
    weights = {"steps": np.array(7), "w": jnp.zeros(2)}
    edited = apply(weights, V, 2.0)
    assert edited["steps"] == 7 and edited["w"].tolist() == [6.0, 8.0]
    with pytest.raises(ValueError, match="pretrained: 1 leaves are not floating point"):
        apply({"w": np.array([1, 2])}, V)


def test_numpy_doubles_keep_their_digits_or_are_refused():
    double = {"w": np.array([1.0, 1 + 2.0**-40])}
    for found in (
        add([double])["w"],
        add([double, double])["w"] / 2,
        -oj.negate_task_vector(double)["w"],
        oj.analogy(double, double, double)["w"],
        oj.task_vector(double, {"w": np.zeros(2)})["w"],
    ):
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, double["w"])
    single = {"w": jnp.ones(2)}
    for function in (
        lambda: apply(double, single, 0.3),
        lambda: merge([double, double], oj.average()),
        lambda: merge([double, double], oj.tsv_m()),
        lambda: match([double, double]),
        lambda: fisher([double, double], [single, single]),
        lambda: regmean([double, double], [{}, {}]),
        lambda: add([single, double]),
        lambda: oj.task_vector(single, double),
    ):
        with pytest.raises(ValueError, match="leaf 'w' is float64, .*jax_enable_x64"):
            function()
    edited = apply(single, double, 2.0)["w"]  # in the type of the weights
    assert edited.dtype == jnp.float32
    np.testing.assert_allclose(edited, [3.0, 3.0])
    with jax.enable_x64(True):
        merged = merge([double, double], oj.average())["w"]
        edited = apply(double, double, 0.5)["w"]
    assert merged.dtype == edited.dtype == np.float64
    np.testing.assert_array_equal(merged, double["w"])
    np.testing.assert_array_equal(edited, 1.5 * double["w"])


@several
def test_one_vector_in_the_place_of_several(function):
    with pytest.raises(ValueError, match=r"vectors is one task vector \(visual\); give several"):
        function({"visual": {"w": jnp.ones((2, 2))}})
    with pytest.raises(ValueError, match=r"one task vector \(visual, text, logit_scale\)"):
        function({"visual": W, "text": W, "logit_scale": jnp.array(0.1)})
    with pytest.raises(ValueError, match="is a dict, and so read as task vectors by name: put a"):
        function({"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)})
    with pytest.raises(ValueError, match="vectors contains no task vector; give at least one"):
        function([])
    with pytest.raises(ValueError, match="vectors is 0.3; give task vectors as a list, or"):
        function(0.3)


@pytest.mark.parametrize("function", ONE.values(), ids=ONE)
def test_several_vectors_in_the_place_of_one(function):
    vectors = {"mnist": {"visual": W}, "emoji": {"visual": W}}
    for given, names in ((vectors, "mnist, emoji"), (list(vectors.values()), "0, 1")):
        with pytest.raises(ValueError, match=rf"contains 2 task vectors \({names}\); give one of"):
            function(given)


@several
def test_vectors_by_name_are_named(function):
    with pytest.raises(ValueError, match=r"vectors\['emoji'\] and vectors\['mnist'\] differ in sh"):
        function({"mnist": W, "emoji": {"w": jnp.ones(3)}})
    with pytest.raises(ValueError, match=r"vectors\[1\] and vectors\[0\] differ in shape: w: "):
        function([W, {"w": jnp.ones(3)}])


@every
@pytest.mark.parametrize("library", [np, jnp])
def test_models_are_no_task_vectors(function, library):
    for make in (lambda scale: {"visual": tower(scale)}, tower):
        model, vector = (jax.tree.map(library.asarray, make(scale)) for scale in (1.0, -0.02))
        function(vector)
        if function is oj.norm:  # a length relative to that of theta_0
            assert float(function(model)) > 0
            continue
        with pytest.raises(ValueError, match="mean layer-norm scale is 1, so these are a model's"):
            function(model)


def test_vectors_of_own_models_stay_what_they_are():
    layers = [{"w": jnp.ones((2, 2)), "b": jnp.ones(2)}] * 2  # a multi-layer perceptron
    state = optax.EmptyState(), (jnp.ones(2), {"scale": jnp.ones(2)})
    wrapped = {"params": {"visual": {"w": jnp.ones(2)}, "text": jnp.ones(3)}}
    for tree in (layers, state, wrapped, jnp.ones(3), {"norm": {"scale": jnp.ones(2)}}):
        size = sum(leaf.size for leaf in jax.tree.leaves(tree))
        np.testing.assert_allclose(oj.norm(tree), np.sqrt(size))
        np.testing.assert_allclose(cosines([tree, tree]), 1, rtol=1e-6)
        added = add({"a": tree, "b": tree})
        assert jax.tree.structure(added) == jax.tree.structure(tree)
        assert all((leaf == 2).all() for leaf in jax.tree.leaves(added))


def test_what_is_no_tree_is_named():
    class Model:
        params = W

    with pytest.raises(ValueError, match="vector is 0.3; give a tree of arrays"):
        apply(W, 0.3, V)
    with pytest.raises(ValueError, match="pretrained is .*, a Model; give pretrained.params"):
        apply(Model(), V, 0.3)
    with pytest.raises(ValueError, match="vector is .*, a Model; give vector.params"):
        apply(W, Model(), 0.3)


def test_messages_do_not_contain_whole_trees():
    vectors = {"mnist": {"visual": tower(0.0)}, "emoji": {"visual": tower(0.0)}}
    for call in (
        lambda: merge(oj.ties(), vectors),
        lambda: merge(vectors, vectors),
        lambda: apply(vectors["mnist"], oj.ties(), vectors),
        lambda: apply(vectors["mnist"], vectors["mnist"], vectors),
        lambda: inspect.unwrap(oj.ties)(vectors),
        lambda: inspect.unwrap(oj.ties)(elect=vectors),
        lambda: merge(vectors, oj.dare(0.5), key=vectors),
        lambda: inspect.unwrap(oj.wudi)(vectors),
    ):
        with pytest.raises(ValueError) as caught:
            call()
        assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)
    assert briefly(jnp.ones((2, 3))) == "an array of shape (2, 3)"
    assert briefly({"a": jnp.ones(4)}).startswith("{'a': ") and briefly("0.3") == "'0.3'"


@pytest.mark.parametrize("key", [0, 1.5, np.zeros(2, np.uint32), jnp.ones(2), "0"])
def test_what_is_no_random_key(key):
    with pytest.raises(ValueError, match=r"key is .*; give a random key: key=jax.random.key\("):
        merge([W, V], oj.dare(0.5), key=key)


def test_random_keys_new_and_old_and_numbers_as_leaves():
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        found = merge([W, V], oj.dare(0.0), key=key)["w"]
        np.testing.assert_allclose(found, [4.0, 6.0])
    assert float(merge([{"w": 2.0}, {"w": 4.0}], oj.average())["w"]) == 3.0
