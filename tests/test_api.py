"""The public list: complete, documented, and what it was."""

import doctest
import inspect
import re
import shutil
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import orthoreg_jax as oj

PUBLIC = """
Adapter LowRank Matrix Skip VISUAL_MATRICES Checkpoint Task
add_orthogonality_penalty orthogonality_penalty describe_matrices layer_rules dense
tau_jacobian_penalty Kronecker kronecker_penalty merge_kronecker kronecker_factors
delta_distance
add_task_vectors analogy apply_task_vector cosine_matrix negate_task_vector norm task_vector
column_angles column_cosines gram_deviations singular_values stable_ranks
image_encoder load_checkpoint load_preprocessing save_checkpoint zero_shot_head
check_tasks load_tasks load_tree save_tree
merge_task_vectors match_norms average task_arithmetic
ties dare dare_ties breadcrumbs consensus tsv_m iso_c
iso_cts pcb slerp model_stock wudi cart dc_merge knots core_space
layer_names scale_layers search_layer_scales
fisher diagonal_fisher regmean adamerging entropy
choose_addition choose_negation measure_accuracies measure_accuracy measure_disentanglement
sweep_accuracy edited_outputs linearized_outputs
default_config load_config load_task_vector load_task_vectors run_experiment plot_run
plot_accuracies plot_alphas plot_cosines
plot_disentanglement plot_singular_values
""".split()
FUNCTIONS = [name for name in PUBLIC if inspect.isfunction(getattr(oj, name))]
DOCUMENTED = [name for name in PUBLIC if name != "VISUAL_MATRICES"]  # a dict
# What a reader of an example has imported.
IMPORTED = {"oj": oj, "jax": jax, "jnp": jnp, "np": np, "optax": optax}


def test_the_list_is_what_it_was():
    """A name that is added or taken away changes this list, and the changelog."""
    assert sorted(PUBLIC) == sorted(oj.__all__)


def test_the_version_is_the_installed_packages():
    assert oj.__version__ == metadata.version("orthoreg-jax")


@pytest.mark.parametrize("name, near", [
    ("tise", "; did you mean ties"), ("apply_taskvector", "; did you mean apply_task_vector"),
    ("cosines_matrix", "cosine_matrix"), ("xyzzy", "has no 'xyzzy'$"),
])  # fmt: skip
def test_misspelt_names_are_answered_with_near_ones(name, near):
    with pytest.raises(AttributeError, match=near):
        getattr(oj, name)


def test_nothing_has_two_names():
    assert len({id(getattr(oj, name)) for name in PUBLIC}) == len(PUBLIC)
    for name in FUNCTIONS:
        assert getattr(oj, name).__name__ == name


def test_the_reference_has_every_name_once(pytestconfig):
    pages = (pytestconfig.rootpath / "docs" / "reference").glob("*.md")
    found = [line for page in pages for line in re.findall(r"^::: (.*)$", page.read_text(), re.M)]
    stub = (pytestconfig.rootpath / "orthoreg_jax" / "__init__.pyi").read_text()
    lines = re.findall(r"^from \.(\S+) import (\w+) as \2$", stub, re.M)
    assert sorted(found) == sorted(f"orthoreg_jax.{module}.{name}" for module, name in lines)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstrings_say_what_and_with_what(name):
    thing = getattr(oj, name)
    first, _, rest = inspect.getdoc(thing).partition("\n")
    assert first.endswith(".") and (not rest or rest.startswith("\n"))
    if name in FUNCTIONS:
        described = re.search(r"^Args:\n((?:  .*\n?|\n)+)", rest, re.M)
        parameters = list(inspect.signature(thing).parameters)
        listed = re.findall(r"^  (\w+): ", described[1] if described else "", re.M)
        assert listed == parameters


def test_objects_print_on_one_line_and_treescope_shows_them():
    clip, task = oj.load_checkpoint("embedded"), oj.load_tasks("embedded", ["digits"])["digits"]
    said = {
        repr(clip): f"Checkpoint('{clip.directory}': 3.3 M parameters, 32 px)",
        repr(task): "Task('digits': 10 classes, 987 train, 110 val, 700 test images)",
        repr(task.splits["test"]): "Split(700 images of 10 classes)",
        repr(oj.ties(20)): "ties(k=20, over='vector', elect='sum', combine='mean')",
        repr(oj.Kronecker(jnp.eye(3), jnp.eye(2))): "Kronecker(inputs=(3, 3), outputs=(2, 2))",
        repr(oj.LowRank(jnp.ones((3, 1)), jnp.ones((1, 2)), 0.5)):
            "LowRank(left=(3, 1), right=(1, 2), scale=0.5)",
    }  # fmt: skip
    assert [*said] == [*said.values()]
    treescope = pytest.importorskip("treescope")
    vector = {"visual": clip.params["visual"]}
    for shown, begins in ((clip, "Checkpoint("), (task, "Task("), (vector, "{")):  # folded
        assert treescope.render_to_text(shown).startswith(begins)
        assert len(treescope.render_to_html(shown)) < 200_000


@pytest.fixture(scope="module")
def desk(inputs, finished, tmp_path_factory):
    """The folder in which a reader works: with a config, mine.py, and its run, runs/mine."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copy(inputs, folder / "mine.py")
    shutil.copytree(finished, folder / "runs" / "mine")
    return folder


@pytest.mark.parametrize("name", DOCUMENTED)
def test_examples_are_there_and_true(name, desk, monkeypatch):
    monkeypatch.chdir(desk)
    parsed = doctest.DocTestParser().get_doctest(
        inspect.getdoc(getattr(oj, name)), dict(IMPORTED), name, None, 0
    )
    assert parsed.examples and not any(example.options for example in parsed.examples)
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(parsed, out=said.append)
    assert not said, "".join(said)
