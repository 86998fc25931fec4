import math
import pathlib

import numpy as np
import pytest

from orthoreg_jax.config import default_config, flatten_config, load_config, override, validate
from orthoreg_jax.config.given import with_given
from orthoreg_jax.config.unknown import SYNONYMS
from orthoreg_jax.tasks.catalogue import BENCHMARKS, KNOWN

ROOT = pathlib.Path(__file__).parents[1]
CONFIGS = [f"configs/{path.name}" for path in sorted((ROOT / "configs").glob("*.py"))]


@pytest.fixture(params=CONFIGS)
def config(request, pytestconfig):
    return load_config(pytestconfig.rootpath / request.param)


def test_shipped_configs_are_valid_and_say_how_to_run_them(config, pytestconfig):
    validate(default_config())
    for path in CONFIGS:
        text = (pytestconfig.rootpath / path).read_text()
        assert f"--config {path}" in text and "Hardware: " in text


PAPER = ("configs/paper.py", "configs/vit_b16.py", "configs/vit_l14.py")


def test_the_papers_table_is_three_configs(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    from published import ADDITION, MODELS

    configs = [load_config(ROOT / path) for path in PAPER]
    assert [config.model for config in configs] == [f"ViT-{model}" for model in MODELS]
    for config in configs:
        assert {"zero-shot", *config.methods} == set(ADDITION)
        options = config.evaluation  # the authors' grid, and ours in a table of its own
        assert (options.alpha_search, options.other_search) == ("grid", True)
        np.testing.assert_allclose(options.alphas, np.arange(21) * 0.05)
        assert (config.training.epochs, len(config.tasks)) == (-1, 8)
        assert config.training.batch_size == 128


@pytest.mark.parametrize("name, size, steps", [("fourteen", 14, 27_757), ("twenty", 20, 41_946)])
def test_longer_lists_of_tasks_follow_the_same_recipe(name, size, steps):
    path = ROOT / "configs" / f"{name}.py"
    config, paper = load_config(path), load_config(ROOT / PAPER[0])
    assert config.tasks == BENCHMARKS[size]
    changed = {key for key, value in flatten_config(config).items()
               if value != flatten_config(paper)[key]}  # fmt: skip
    assert changed == {"tasks", "methods"}
    sizes = [(KNOWN[task].epochs, KNOWN[task].train) for task in config.tasks]
    assert sum(math.ceil(epochs * images / 128) for epochs, images in sizes) == steps
    assert f"{steps:,} steps of 128 images" in path.read_text()


@pytest.mark.parametrize(
    "method, rate, strength",
    [("full+orthoreg", 1e-5, 10.0), ("lora", 1e-4, 0.0), ("lora+orthoreg", 1e-4, 1.0)],
)
def test_rates_and_lambdas_of_the_paper(method, rate, strength):
    config = load_config(ROOT / PAPER[2])
    own = config.per_method[method]
    assert (own.learning_rate or config.training.learning_rate) == rate
    if strength:
        assert (own.strength or config.penalty.strength) == strength


def test_overrides_take_the_option_s_type():
    config = default_config()
    override(
        config,
        [
            "training.steps=70",
            "training.learning_rate=1e-3",
            "penalty.strength=3",
            "tasks=mnist,tools",
            "seeds=1,2",
            "training.remat=true",
            "evaluation.alphas=0,0.5,1",
            "model=ViT-B/32",
            "per_method.lora+orthoreg.strength=1",
            "lora.placement=qv",
        ],
    )
    flat = flatten_config(config)
    assert flat["training.steps"] == 70 and flat["training.learning_rate"] == 1e-3
    assert flat["penalty.strength"] == 3.0 and isinstance(flat["penalty.strength"], float)
    assert flat["tasks"] == ("mnist", "tools") and flat["seeds"] == (1, 2)
    assert flat["training.remat"] is True and flat["model"] == "ViT-B/32"
    assert flat["evaluation.alphas"] == (0.0, 0.5, 1.0)
    assert flat["per_method.lora+orthoreg.strength"] == 1.0
    validate(config)


@pytest.mark.parametrize(
    "text, message",
    [
        ("training", "training: is a section; its options are accumulate, batch_size, .*decay$"),
        ("penalty.tak=3", "is a section; its options are images, normalized, projection, strength"),
        ("training.steps", "has no value; write --config.training.steps=VALUE$"),
        (
            "training.warmup_steps=3",
            "is now training.warmup, a number of steps from 1 up or a share",
        ),
        ("training.steps=many", "allowed: a whole number, for example 100"),
        ("training.steps=1.5", "a whole number"),
        ("training.remat=perhaps", "True or False"),
        ("seeds=a,b", "a list, each entry a whole number, for example 0"),
    ],
)
def test_bad_overrides(text, message):
    with pytest.raises(ValueError, match=message):
        override(default_config(), [text])


@pytest.mark.parametrize(
    "key, meant",
    [
        ("training.stepz", "training.steps"),
        ("trainig.steps", "training.steps"),
        ("steps", "training.steps"),
        ("training.lr", "training.learning_rate"),
        ("lr", "training.learning_rate"),
        ("penalty.lambda", "penalty.strength"),
        ("penalty.weight", "penalty.strength"),  # delta.weight is of another section
        ("penalty.tak.lambda", "penalty.tak.strength"),
        ("training.lambda", "penalty.strength"),
        ("training.bs", "training.batch_size"),
        ("batch_size", "evaluation.batch_size or training.batch_size"),
        ("learning_rate", "training.learning_rate"),  # not those of each method
        ("per_method.lora.lr", "per_method.lora.learning_rate"),
        ("per_method.full+orthreg.strength", "per_method.full+orthoreg.strength"),
        ("eval.alphas", "evaluation.alphas"),
        ("task", "tasks"),
        ("seed", "seeds"),
    ],
)
def test_the_option_that_was_meant(key, meant):
    with pytest.raises(ValueError) as caught:
        override(default_config(), [f"{key}=1"])
    assert str(caught.value) == f"--config.{key}=1: no such option; did you mean {meant}?"


@pytest.mark.parametrize(
    "key, rest",
    [("lora.zzz", "lora has alpha, placement, rank"), ("zzz", "`orthoreg run --help` lists all")],
)
def test_an_option_that_is_like_no_other(key, rest):
    with pytest.raises(ValueError) as caught:
        override(default_config(), [f"{key}=1"])
    assert str(caught.value) == f"--config.{key}=1: no such option; {rest}"


def test_synonyms_are_of_options_and_are_none():
    last = {key.rpartition(".")[2] for key in flatten_config(default_config())}
    assert {*SYNONYMS.values()} <= last
    assert {*SYNONYMS} & last <= {"weight"}


@pytest.mark.parametrize(
    "text, message",
    [
        ("training.steps=0", "training.steps is 0, allowed: a whole number from 1 up"),
        ("training.warmup=100", "a number of steps below training.steps, which is 100, or a share"),
        (
            "training.warmup=2.5",
            "training.warmup is 2.5, allowed: a share of the steps below 1, or",
        ),
        ("training.warmup=-0.1", "training.warmup is -0.1"),
        ("training.learning_rate=-1.0", "learning_rate is -1.0"),
        ("training.crop_scale=0.0", "crop_scale"),
        ("training.dtype=float16", "allowed: float32 or bfloat16"),
        (
            "methods=full,magic",
            "allowed: full, linearized, attention, lora, delta, each optionally",
        ),
        ("methods=full+magic", "any of \\+orthoreg, \\+taujp, \\+tak, \\+drift, in this order"),
        ("methods=full+tak+orthoreg", "in this order"),
        ("methods=full+tak+tak", "in this order"),
        ("penalty.tak.images=-1", "penalty.tak.images is -1"),
        ("penalty.taujp.batch_size=0", "penalty.taujp.batch_size is 0"),
        ("per_method.lora+tak.strength=-1", "per_method.lora\\+tak.strength is -1"),
        ("methods=", "methods is \\(\\)"),
        ("tasks=mnist,mnist", "all different"),
        ("control=mnist", "a task not listed in `tasks`"),
        ("per_method.full.learning_rate=-1", "per_method.full.learning_rate is -1"),
        ("lora.placement=kv", "qkvo or qkv or qv or mlp or all"),
        (
            "evaluation.disentanglement_tasks=mnist",
            "empty, or at least two different names",
        ),
        ("evaluation.disentanglement_alphas=1,2", "including 0"),
        ("lora.rank=0", "lora.rank is 0"),
        ("penalty.strength=0.0", "more than 0 with \\+orthoreg"),
        ("penalty.form=squared", "allowed: released or paper"),
        ("evaluation.alphas=0.5,1.0", "starting at 0"),
        ("evaluation.alphas=0,1,1", "starting at 0"),
        ("evaluation.control_shares=1.5", "control_shares"),
        ("seeds=0,0", "all different"),
        ("seeds=4294967296", "from 0 to 2\\*\\*32 - 1"),
        ("matmul_precision=low", "highest or high or default"),
        ("penalty.precision=float16", "highest or high or default"),
    ],
)
def test_bad_values(text, message):
    config = default_config()
    override(config, [text])
    with pytest.raises(ValueError, match=message):
        validate(config)


def test_all_problems_come_at_once():
    config = default_config()
    override(config, ["training.steps=0", "penalty.form=x", "control=mnist"])
    with pytest.raises(ValueError, match=r"control.*penalty\.form.*training\.steps"):
        validate(config)


@pytest.mark.parametrize(
    "source, message",
    [
        ("config.trainin = 3", r"trainin: no such option; did you mean training\?$"),
        ("config.trainin.steps = 3", r"trainin: no such option; did you mean training\?$"),
        ("config.training.stepz = 3", r"stepz: no such option; did you mean training\.steps\?$"),
        ("print(config.training.stepz)", r"stepz: no such option; did you mean training\.steps"),
        ("config.per_method['lor'].strength = 1.0", "lor: no such option; did you mean lora"),
        ("config.training.warmup_steps = 3", "warmup_steps: is now training.warmup, a number"),
        (
            "config.training.steps = '10'",
            r"training\.steps is '10', allowed: a whole number, for example 100$",
        ),
        (
            "config.tasks = 'mnist'",
            r"tasks is 'mnist', allowed: a list, each entry a text, for example \('mnist', 'fash",
        ),
        ("config.seeds = 3", r"seeds is 3, allowed: a list, .*a whole number, for example \(0,\)$"),
        (
            "config.penalty.strength = 'a\\nb'",
            r"strength is 'a\\nb', allowed: a finite number, for",
        ),
        ("config.training = 3", "training: is a section; its options are accumulate, batch_s"),
        ("raise KeyError('of its own')", "KeyError: of its own"),
        ("raise ValueError('of its own')", "ValueError: of its own"),
        ("{}.nothing", "AttributeError: 'dict' object has no attribute 'nothing'"),
        ("x = (", r"SyntaxError: '\(' was never closed$"),
        ("import nowhere_to_be_found", "nowhere_to_be_found"),
    ],
)
def test_an_error_in_a_file_names_its_line(tmp_path, source, message):
    with pytest.raises(ValueError, match=f"bad.py': line 4: .*{message}"):
        load_config(bad_file(tmp_path, source))


@pytest.mark.parametrize(
    "source, message",
    [
        ("return None", r"returned NoneType.*return config"),
        (
            "config.seeds = (0, 'b')",
            r"seeds is \(0, 'b'\), allowed: a list, each entry a whole",
        ),
        ("config.evaluation.alphas = (0.0, 'b')", "alphas .* a list, each entry a finite number"),
        ("config.evaluation.alphas = (0.0, float('nan'))", "alphas .* a finite number"),
    ],
)
def test_bad_files(tmp_path, source, message):
    with pytest.raises(ValueError, match=message):
        load_config(bad_file(tmp_path, source))


def bad_file(folder, source):
    path = folder / "bad.py"
    path.write_text(
        "from orthoreg_jax.config import default_config\n"
        f"def get_config():\n    config = default_config()\n    {source}\n    return config\n"
    )
    return path


def test_an_error_below_the_file_names_the_file_s_own_line(tmp_path):
    message = "line 4: JSONDecodeError: Expecting value"
    with pytest.raises(ValueError, match=message):
        load_config(bad_file(tmp_path, "import json; json.loads('')"))


def test_missing_file_and_missing_function(tmp_path):
    with pytest.raises(ValueError, match="no such Python file"):
        load_config(tmp_path / "none.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ValueError, match="get_config"):
        load_config(tmp_path / "empty.py")


@pytest.mark.parametrize("name", ["taujp", "tak"])
def test_a_penalty_that_looks_at_other_tasks_needs_them_and_a_strength(name):
    config = default_config()
    config.methods, config.tasks = (f"full+{name}",), ("mnist",)
    config.penalty[name].strength = 0.0
    with pytest.raises(ValueError, match=rf"strength is 0.0.*two or more with \+{name}, which"):
        validate(config)
    config.methods = ("full+orthoreg",)
    validate(config)


@pytest.mark.parametrize(
    "methods, good",
    [("full+orthoreg", True), ("lora,linearized+orthoreg+tak", True), ("full", False),
     ("attention+orthoreg,lora+orthoreg,full+tak", False)],
)  # fmt: skip
def test_text_tensors_take_a_method_that_trains_them(methods, good):
    config = default_config()
    override(config, ["penalty.text_tensors=True", f"methods={methods}"])
    if good:
        validate(config)
    else:
        with pytest.raises(ValueError, match="False, unless `methods` has full\\+orthoreg or lin"):
            validate(config)


def shown(config, *keys):
    flat = flatten_config(config)
    return [flat[key] for key in keys]


NAMING_TASKS = (
    *("evaluation.disentanglement_tasks", "evaluation.analogies", "evaluation.feature_images"),
    "given",
)


@pytest.fixture
def four(tmp_path):
    """A config of four tasks and a fifth, whose every option that names tasks does so."""
    path = tmp_path / "four.py"
    path.write_text(
        "from orthoreg_jax.config import default_config\n"
        "def get_config():\n"
        "    config, evaluation = (made := default_config()), made.evaluation\n"
        "    config.tasks = ('a', 'b', 'c', 'd', 'e')\n"
        "    config.given = tuple(f'{task}=model' for task in config.tasks)\n"
        "    evaluation.disentanglement_tasks = ('a', 'b', 'c')\n"
        "    evaluation.analogies = ('a:b:c:d', 'b:c:d:e')\n"
        "    evaluation.feature_images = 4\n"
        "    return config\n"
    )
    return path


PAIRS = "disentanglement of {} (name others in evaluation.disentanglement_tasks)"


@pytest.mark.parametrize(
    "tasks, pairs, analogies, images, left_out",
    [
        ("a,b,c,d,e", "abc", ("a:b:c:d", "b:c:d:e"), 4, ""),
        ("d,c,b,a", "abc", ("a:b:c:d",), 4, "the analogy b:c:d:e"),
        ("b,c", "bc", (), 4, PAIRS.format("a") + "; the analogy a:b:c:d; the analogy b:c:d:e"),
        ("a,d", "", (), 4, PAIRS.format("a, b, c") + "; the analogy a:b:c:d; the analogy b:c:d:e"),
        ("e", "", (), 0, "disentanglement of a, b, c; the analogy a:b:c:d; the analogy b:c:d:e; "
                         "specialisation, which needs two tasks"),
    ],
)  # fmt: skip
def test_options_that_name_tasks_follow_other_tasks(
    four, capfd, tasks, pairs, analogies, images, left_out
):
    config = load_config(four, [f"tasks={tasks}"])
    given = tuple(f"{task}=model" for task in "abcde" if task in tasks)
    assert shown(config, *NAMING_TASKS) == [tuple(pairs), analogies, images, given]
    named = tasks.replace(",", ", ")
    said = f"note: not measured with these tasks ({named}): {left_out}\n" if left_out else ""
    assert capfd.readouterr().err == said


@pytest.mark.parametrize(
    "option, message",
    [
        ("evaluation.disentanglement_tasks=a,b", r"two different names from `tasks` \(b, f\)"),
        ("evaluation.analogies=a:b:c:d", "a:b:c:d, four different names from `tasks`"),
        ("given=a=model", "TASK=MODEL, once for each of `tasks`"),
    ],
)
def test_what_the_user_asks_for_together_with_tasks_is_refused_if_it_does_not_fit(
    four, option, message
):
    with pytest.raises(ValueError, match=message):
        load_config(four, ["tasks=b,f", option])


def test_features_that_the_user_asks_for_need_two_tasks(four):
    with pytest.raises(ValueError, match="feature_images is 8, allowed: 0 with a single task"):
        load_config(four, ["tasks=a", "evaluation.feature_images=8"])


def test_a_file_that_does_not_fit_itself_is_refused(four):
    four.write_text(four.read_text().replace("'e')", "'f')"))
    with pytest.raises(ValueError, match="evaluation.analogies is"):
        load_config(four)


def test_wrong_types_are_said_before_tasks_are_followed(four):
    four.write_text(four.read_text().replace("('a:b:c:d', 'b:c:d:e')", "(3,)"))
    with pytest.raises(ValueError, match=r"analogies is \(3,\), allowed: a list, each entry a te"):
        load_config(four, ["tasks=a,b"])


def test_given_models_replace_a_file_s_tasks(four):
    config, note = with_given(four, ["a=model", "x=other"], "base", "", "")
    assert shown(config, *NAMING_TASKS) == [(), (), 4, ("a=model", "x=other")]
    assert note.startswith("not measured with these tasks (a, x): disentanglement of a, b, c")
    with pytest.raises(ValueError, match="TASK=MODEL, once for each of `tasks`"):
        with_given(four, ["a=model", "x=other"], "base", "", "", ["tasks=a"])
