import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import orthoreg_jax as oj
from orthoreg_jax import Matrix, Skip, describe_matrices
from orthoreg_jax.arithmetic.matrices import as_matrices, select_matrices
from orthoreg_jax.arithmetic.rules import check_rules, rules_for_part


def test_axes_are_merged_in_the_order_given():
    leaf = jnp.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    read = as_matrices(leaf, Matrix(rows=(1,), columns=(2, 3)))
    np.testing.assert_array_equal(read, np.asarray(leaf).reshape(2, 3, 20))
    read = as_matrices(leaf, Matrix(rows=(-2,), columns=(0, -3)))
    expected = np.asarray(leaf).transpose(3, 2, 0, 1).reshape(5, 4, 6)
    np.testing.assert_array_equal(read, expected)


def test_first_rule_that_matches_counts_and_two_axes_need_none():
    tree = {"a": {"kernel": jnp.ones((2, 3, 4))}, "b": jnp.ones((3, 2)), "c": jnp.ones(3)}
    rules = {"a/*": Matrix(), "*kernel": Skip("never reached")}
    assert rules_for_part({"a": tree["a"]}, {**rules, "other": Matrix()}) == rules
    selected = select_matrices(tree, rules)
    assert {path: matrix.shape for path, matrix in selected.items()} == {
        "a/kernel": (2, 3, 4),
        "b": (1, 3, 2),
    }


def test_report_names_every_leaf_and_why():
    tree = {
        "bias": jnp.ones(3),
        "conv": jnp.ones((2, 2, 3, 4)),
        "heads": jnp.ones((4, 2, 2)),
        "stack": jnp.ones((5, 4, 2)),
    }
    rules = {"conv": Skip("a convolution"), "stack": Matrix(), "typo*": Matrix()}
    report = describe_matrices(tree, rules)
    rows = {line.split()[0]: line for line in report.splitlines()}
    assert set(tree) | {"leaf", "rule"} == set(rows)
    assert "bias, scale or scalar" in rows["bias"]
    assert rows["conv"].endswith("-- a convolution")
    assert "ERROR" in rows["heads"]
    assert rows["stack"].endswith("5 x (4 rows, 2 columns)")
    assert rows["rule"] == "rule 'typo*' matches no leaf"


@pytest.mark.parametrize("rows, columns", [((0,), (5,)), ((), (1,)), ((0, 1), (-1,))])
def test_rules_that_do_not_fit_are_refused(rows, columns):
    with pytest.raises(ValueError, match="does not fit leaf 'w' of shape"):
        select_matrices({"w": jnp.ones((2, 3))}, {"w": Matrix(rows, columns)})


def test_equinox_modules_are_more_than_arrays():
    model = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    arrays = eqx.filter(model, eqx.is_inexact_array)
    assert list(select_matrices(arrays)) == ["layers/0/weight", "layers/1/weight"]
    report = describe_matrices(model)
    assert "activation" in report and "ERROR: a custom_jvp, not an array" in report
    for function in (
        oj.orthogonality_penalty,
        oj.add_orthogonality_penalty(1.0).init,
        lambda tree: oj.task_vector(tree, tree),
        lambda tree: oj.add_task_vectors([tree, tree]),
        oj.norm,
    ):
        with pytest.raises(ValueError, match=r"'activation', a custom_jvp\); .* eqx.filter\(model"):
            function(model)
        function(arrays)
    edited = oj.apply_task_vector(model, arrays, -1.0)  # a whole module may be edited
    np.testing.assert_array_equal(edited(jnp.ones(3)), np.zeros(2))


def test_two_leaves_of_one_path_are_refused():
    tree = {"a/b": jnp.ones((4, 3)), "a": {"b": jnp.ones((4, 3))}}
    with pytest.raises(ValueError, match="two leaves have the path 'a/b'"):
        oj.orthogonality_penalty(tree)


def test_rules_say_what_is_wrong_with_them():
    tree = {"q": {"lora_a": jnp.ones((4, 2)), "lora_b": jnp.ones((2, 3))}, "k": jnp.ones((4, 3))}
    with pytest.raises(
        ValueError, match=r"no node matches '\*' and has leaves 'lora_A' and 'lora_B'"
    ):
        oj.orthogonality_penalty(tree, matrices={"*": oj.Adapter("lora_A", "lora_B")})
    with pytest.raises(ValueError, match="matrices is a list; give a dict from patterns"):
        check_rules([Matrix()])
    with pytest.raises(ValueError, match="the tree has no weight matrix; it is empty"):
        oj.orthogonality_penalty({})
    with pytest.raises(
        ValueError, match="no weight matrix, only these leaves:\nleaf  shape  read as"
    ):
        oj.orthogonality_penalty({"b": jnp.ones(3)})
    rules = {"*/lora_?": Skip("other"), "k": Matrix(), "q/lora_a": Skip("never")}
    assert describe_matrices(tree, rules).endswith(
        "\nrule 'q/lora_a' never applies: the rules before it match its leaves first"
    )
    assert "(1 row, 1 column)" in describe_matrices({"temperature": jnp.ones((1, 1))})


@pytest.mark.parametrize("layer", ["tok_emb", "wte", "pos_emb", "embed_tokens", "wpe_1"])
def test_weights_named_like_embeddings_need_a_rule(layer):
    with pytest.raises(ValueError, match=f"'{layer}/weight' .*named like an embedding"):
        oj.orthogonality_penalty({layer: {"weight": jnp.ones((9, 4))}})
    assert "-- a bias or scale" in describe_matrices({"attention": {"BIAS": jnp.ones((2, 4))}})
