"""What `merge` writes is the model that it says, and `measure` measures it."""

import json
import re
import shutil

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import orthoreg_jax as oj
from orthoreg_jax import cli
from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.evaluation.search import search_addition
from orthoreg_jax.experiment.setup import reopen
from orthoreg_jax.tasks.batches import limited_rows
from orthoreg_jax.tasks.loading import load_images
from orthoreg_jax.trees import StoredTree
from tests.small_run import change_results, pretrained

METHOD = "full+orthoreg"


def paths(finished):
    return [finished / METHOD / "seed3" / t / "vector.safetensors" for t in ("first", "second")]


def of_run(finished, out, *more):
    command = ["merge", "--workdir", str(finished), "--method", METHOD, "--out", str(out)]
    return cli.main([*command, *more])


def of_files(finished, out, *more):
    vectors = [str(path) for path in paths(finished)]
    command = [
        "merge",
        "--vectors",
        *vectors,
        "--model",
        str(pretrained(finished).directory),
        "--out",
        str(out),
    ]
    return cli.main([*command, *more])


def edited(finished, merger, alpha):
    """theta_0 + alpha * tau, merged in memory."""
    trees = [oj.load_tree(path) for path in paths(finished)]
    vector = oj.merge_task_vectors(trees, merger, matrices=oj.VISUAL_MATRICES)
    return oj.apply_task_vector(pretrained(finished).params, vector, alpha)


def assert_same(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_of_a_run_with_alpha_chosen(finished, inputs, tmp_path, capsys):
    assert of_run(finished, tmp_path / "out", "--merger", "iso_c") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    alpha = float(re.search(r"θ₀ \+ ([\d.]+) · iso_c\(τ_first, τ_second\)", card)[1])
    found = load_checkpoint(tmp_path / "out")
    assert_same(found.params, edited(finished, oj.iso_c(), alpha))
    # Found as the run's own alphas are: in relative length, then between the best's neighbours.
    tasks = oj.load_tasks(str(inputs.parent), ["first", "second"], "others")
    results = json.loads((finished / "results.json").read_text())
    single = next(r for r in results["runs"] if r["method"] == METHOD)["single"]["val"]
    both = {name: tasks[name] for name in ("first", "second")}

    def measure(alphas):
        models = [edited(finished, oj.iso_c(), alpha) for alpha in alphas]
        val = [oj.measure_accuracies(found, model, both, "val") for model in models]
        return np.array([list(each.values()) for each in val])

    pretrained = oj.load_checkpoint(str(inputs.parent / "model")).params
    merged = oj.task_vector(pretrained, edited(finished, oj.iso_c(), 1.0))
    length = float(oj.norm(merged)) / float(oj.norm(pretrained["visual"]))
    alphas = [each / length for each in results["config"]["evaluation.relative_lengths"]]
    single = np.array([single["first"], single["second"]])
    best = search_addition(measure, alphas, single, rounds=1).choice
    assert alpha == best.alpha
    assert ("largest tried" in card) == best.at_edge
    # `measure` finds on the files what the card says.
    capsys.readouterr()
    command = ["measure", "--model", str(tmp_path / "out"), "--data", str(inputs.parent)]
    assert cli.main([*command, "--tasks", "first,second"]) == 0
    said = capsys.readouterr().out
    for name, accuracy in oj.measure_accuracies(found, found.params, both).items():
        assert re.search(rf"{name} +36 +{100 * accuracy:.2f}", said)
        assert f"{100 * accuracy:.2f} |" in card


def test_a_card_of_limited_images_says_so(finished, inputs, tmp_path):
    """The numbers are those of as many images as it says."""
    copy = shutil.copytree(finished, tmp_path / "run")
    limits = {"evaluation.max_test_images": 20, "evaluation.max_val_images": 10}
    change_results(copy, lambda results: results["config"].update(limits))
    assert of_run(copy, tmp_path / "out", "--merger", "task_arithmetic") == 0
    card = huggingface_hub.ModelCard.load(tmp_path / "out" / "README.md")
    alpha = float(re.search(r"θ₀ \+ ([\d.]+) · ", card.text)[1])
    names = {"first", "second"}
    tasks = oj.load_tasks(str(inputs.parent), [*names], "others")
    total = oj.add_task_vectors([oj.load_tree(path) for path in paths(finished)])
    for name in names:
        task = tasks[name]
        found = oj.sweep_accuracy(
            pretrained(finished), total, [task], [alpha], split="test", limit=20
        )
        assert f"| {task.title} | 20 of 36 | " in card.text
        assert f" | {100 * found.item():.2f} |" in card.text
    assert {each.metric_name for each in card.data.eval_results} == {
        "accuracy on 20 of 36 test images"
    }
    assert "α is chosen on at most 10 validation images of each" in card.text


def test_of_files_with_options(finished, tmp_path):
    more = ["--merger", "ties", "--option", "k=50", "combine=sum", "--alpha", "0.4"]
    assert of_files(finished, tmp_path / "out", *more) == 0
    found = load_checkpoint(tmp_path / "out")
    assert_same(found.params, edited(finished, oj.ties(50, combine="sum"), 0.4))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "θ₀ + 0.4 · ties(τ_1, τ_2)" in card and "with k = 50, combine = sum" in card
    for path in paths(finished):
        assert StoredTree(path).check() in card


def test_vectors_of_another_model_are_refused(finished, tmp_path, capfd):
    first, second = paths(finished)
    other = tmp_path / "other.safetensors"
    oj.save_tree(other, oj.load_tree(second), {"pretrained_sha256": "0" * 64})
    command = [
        "merge",
        "--vectors",
        str(first),
        str(other),
        "--model",
        str(pretrained(finished).directory),
    ]
    assert cli.main(
        [*command, "--merger", "task_arithmetic", "--alpha", "1", "--out", str(tmp_path / "x")]
    )
    said = capfd.readouterr().err
    assert f"{other}: was computed against other pre-trained weights (SHA-256 000000000000)" in said
    assert not (tmp_path / "x").exists()


def test_draws_repeat_by_their_seed(finished, tmp_path):
    models = []
    for name, draw in (("a", "1"), ("b", "1"), ("c", "2")):
        more = ["--merger", "dare", "--option", "p=0.5", "--alpha", "1", "--draw", draw]
        assert of_files(finished, tmp_path / name, *more) == 0
        models.append((tmp_path / name / "model.safetensors").read_bytes())
    assert models[0] == models[1] != models[2]
    assert "with p = 0.5, seed 2" in (tmp_path / "c" / "README.md").read_text()


def test_a_run_of_an_earlier_version_without_its_data(finished, inputs, tmp_path, capfd):
    """An option that it did not have is as by default; data are needed to choose alpha alone."""
    copy = shutil.copytree(finished, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    assert config.pop("training.accumulate") == 1
    (copy / "config.json").write_text(json.dumps(config))
    assert reopen(copy).config.training.accumulate == 1
    config["data"] = str(tmp_path / "gone")
    (copy / "config.json").write_text(json.dumps(config))
    assert of_run(copy, tmp_path / "chosen", "--merger", "task_arithmetic") == 1
    assert "gone" in capfd.readouterr().err
    assert of_run(copy, tmp_path / "given", "--merger", "task_arithmetic", "--alpha", "0.5") == 0
    found = load_checkpoint(tmp_path / "given")
    assert_same(found.params, edited(finished, oj.task_arithmetic(), 0.5))
    assert "α was given by hand" in (tmp_path / "given" / "README.md").read_text()


@pytest.mark.parametrize(
    "start, more, message",
    [
        (of_run, ["--merger", "mean"], "merger 'mean'; allowed: average, task_arithmetic, ties"),
        (of_run, ["--merger", "ties", "--option", "q=1"], "no parameter 'q'; it has k=20.0"),
        (of_run, ["--merger", "ties", "--option", "k"], "--option k: write NAME=VALUE"),
        (
            of_run,
            ["--merger", "ties", "--option", "k=x"],
            "k=x is not a number; give one, for example k=20.0",
        ),
        (of_run, ["--merger", "ties", "--option", "k=0"], "k is 0.0; give per cent"),
        (of_run, ["--merger", "ties", "--option", "k=0.2"], "for the fraction 0.2, k=20"),
        (of_run, ["--merger", "dare", "--option", "density=0.2"], "p = 1 - density for dare"),
        (of_files, ["--merger", "ties", "--alpha", "1e39"], "--alpha 1e+39: too large for float32"),
        (
            of_run,
            ["--merger", "task_arithmetic", "--tasks", "third"],
            "--tasks third: the run has first",
        ),
        (of_run, ["--merger", "task_arithmetic", "--tasks", "first,first"], "a task appears twice"),
        (
            of_run,
            ["--merger", "task_arithmetic", "--alpha", "0"],
            "--alpha 0.0: give a number above 0",
        ),
        (
            of_run,
            ["--merger", "task_arithmetic", "--model", "embedded"],
            "--base: cannot be combined with --workdir, which takes --method",
        ),
        (
            of_files,
            ["--merger", "task_arithmetic"],
            "--alpha: give a value; or give --data and --tasks, one task for each",
        ),
        (
            of_files,
            ["--merger", "task_arithmetic", "--tasks", "first"],
            "--tasks first: give 2 different tasks",
        ),
        (
            of_files,
            ["--merger", "task_arithmetic", "--tasks", "first,first"],
            "give 2 different tasks",
        ),
        (
            of_files,
            ["--merger", "task_arithmetic", "--method", "full"],
            "--method: cannot be combined with --vectors, which",
        ),
        (of_files, ["--merger", "task_arithmetic", "--models", "a"], "only one of them at a time"),
        (
            of_files,
            ["--merger", "task_arithmetic", "--visual-only"],
            "--visual-only: cannot be combined with --vectors",
        ),
    ],
)
def test_bad_requests(finished, tmp_path, capfd, start, more, message):
    assert start(finished, tmp_path / "out", *more) == 1
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_directory_with_files_is_left_alone(finished, tmp_path, capfd):
    (tmp_path / "mine").write_text("mine")
    assert of_run(finished, tmp_path, "--merger", "task_arithmetic") == 1
    assert "is not empty" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_measure_names_all_tasks_that_are_missing(inputs, capfd):
    command = ["measure", "--model", "embedded", "--data", str(inputs.parent)]
    assert cli.main([*command, "--tasks", "first,none,never"]) == 1
    said = capfd.readouterr().err
    assert "task 'none'" in said and "task 'never'" in said


def images_and_heads(finished, inputs, count):
    """Of both tasks' validation splits, as the command takes them."""
    checkpoint = pretrained(finished)
    tasks = oj.load_tasks(str(inputs.parent), ["first", "second"], "others")
    found = []
    for task in (tasks["first"], tasks["second"]):
        data = task.splits["val"]
        rows = limited_rows(len(data), count)
        images = load_images(data.images, rows, checkpoint.preprocessing)
        pixels = checkpoint.preprocessing.normalize(jnp.asarray(images))
        head = oj.zero_shot_head(checkpoint, task.classes, task.templates)
        found.append((pixels, jnp.asarray(head)))
    return checkpoint, found


@jax.numpy_dtype_promotion("standard")
def test_adamerging_on_images_without_labels(finished, inputs, tmp_path, capsys):
    more = ["--merger", "adamerging", "--option", "steps=3", "learning_rate=0.1", "images=8",
            "--tasks", "first,second", "--data", str(inputs.parent), "--alpha", "1"]  # fmt: skip
    assert of_files(finished, tmp_path / "out", *more) == 0
    assert "fitting on validation images, without their labels: 8, 8" in capsys.readouterr().err
    checkpoint, given = images_and_heads(finished, inputs, 8)
    apply = oj.image_encoder(checkpoint.config)

    def loss(vector, batch):
        params = oj.apply_task_vector(checkpoint.params["visual"], vector)
        total = 0.0
        for pixels, head in given:
            features = apply(params, pixels)
            features = features / jnp.linalg.norm(features, axis=-1, keepdims=True)
            total += oj.entropy(jnp.matmul(features, head.T, precision="highest"))
        return total

    vectors = [oj.load_tree(path)["visual"] for path in paths(finished)]
    found = oj.adamerging(vectors, loss, [None], 3, 0.1, matrices=oj.VISUAL_MATRICES)
    expected = oj.apply_task_vector(checkpoint.params, {"visual": found}, 1.0)
    for a, b in zip(*map(jax.tree.leaves, (load_checkpoint(tmp_path / "out").params, expected)),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, atol=1e-4)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "adamerging(τ_first, τ_second)" in card
    assert "fitted on validation images of the tasks, without their labels" in card


@pytest.mark.parametrize("merger", ["regmean", "fisher"])
def test_other_mergers_that_look_at_images(finished, inputs, tmp_path, merger):
    more = ["--merger", merger, "--option", "images=6", "--alpha", "1"]
    assert of_run(finished, tmp_path / "run", *more) == 0
    data = ["--tasks", "first,second", "--data", str(inputs.parent)]
    assert of_files(finished, tmp_path / "files", *more, *data) == 0
    assert_same(*(load_checkpoint(tmp_path / name).params for name in ("run", "files")))
    plain = edited(finished, oj.average(), 1.0)
    found = load_checkpoint(tmp_path / "run").params
    changed = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (found, plain)),
                                                    strict=True)]  # fmt: skip
    assert max(changed) > 1e-6 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_spaces_and_norms(finished, tmp_path):
    more = ["--merger", "ties", "--option", "over=tensor", "--alpha", "1"]
    assert of_files(finished, tmp_path / "core", *more, "--space", "core") == 0
    expected = edited(finished, oj.core_space(oj.ties(over="tensor")), 1.0)
    assert_same(load_checkpoint(tmp_path / "core").params, expected)
    assert "in the space core" in (tmp_path / "core" / "README.md").read_text()
    assert of_files(finished, tmp_path / "norms", *more, "--match-norms", "largest") == 0
    trees = oj.match_norms([oj.load_tree(path) for path in paths(finished)], "largest")
    vector = oj.merge_task_vectors(trees, oj.ties(over="tensor"), matrices=oj.VISUAL_MATRICES)
    expected = oj.apply_task_vector(pretrained(finished).params, vector, 1.0)
    assert_same(load_checkpoint(tmp_path / "norms").params, expected)


@pytest.mark.parametrize(
    "more, message",
    [
        (["--merger", "adamerging", "--alpha", "1"], "--tasks: adamerging looks at images"),
        (["--merger", "adamerging", "--option", "k=1"], "no parameter 'k'; it has steps=500"),
        (["--merger", "regmean", "--option", "images=0"], "images is 0; give images of each task"),
        (["--merger", "fisher", "--space", "core"], "--space: fisher merges in the space of the"),
        (["--merger", "ties", "--space", "knots"], 'ties has over="tensor" for that'),
    ],
)
def test_bad_requests_of_those(finished, tmp_path, capfd, more, message):
    assert of_files(finished, tmp_path / "out", *more) == 1
    assert message in capfd.readouterr().err
