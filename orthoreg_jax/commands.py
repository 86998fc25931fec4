"""What each command of `orthoreg` does; heavy imports wait until it runs."""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

from .arguments import STAGE_HELP
from .words import counted, plural


def _data(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Runs `data check` or `data prepare`."""
    from .tasks.catalogue import BENCHMARKS
    from .tasks.check import check_tasks, prepare_task
    from .tasks.preparing import prepare_tasks
    from .tasks.task import data_directory

    if (options.config is None) == (options.tasks is None):
        raise ValueError(
            "give --config, or --tasks (and --data), e.g. --tasks dtd,svhn --data data"
        )
    names: Sequence[str]
    if options.config is not None:
        from .config.loading import load_with_note

        config, _ = load_with_note(options.config, overrides)
        source, names, control = config.data, config.tasks, config.control
    else:
        benchmarks = {str(size): tasks for size, tasks in BENCHMARKS.items()}
        listed = [name for name in options.tasks.split(",") if name]
        names = [name for each in listed for name in benchmarks.get(each, (each,))]
        source, control = options.data, None
    if options.action == "prepare":
        if options.tfds:
            for name in (*names, *([control] if control else [])):
                print(prepare_task(data_directory(source), name), flush=True)
        else:
            prepare_tasks(source, names, control, lambda line: print(line, flush=True))
        return
    checked, missing = 0, []
    for facts in check_tasks(source, names, control):
        print(facts, flush=True)
        checked += 1
        missing += [facts.name] if facts.problem else []
    if missing:
        names = ", ".join(missing)
        are = plural(len(missing), "is", "are")
        raise ValueError(
            f"{len(missing)} of {counted(checked, 'task')} {are} missing or wrong: {names}"
        )


def _run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    stages = list(STAGE_HELP) if options.command == "run" else [options.command]
    if stages == ["report"]:
        from .reporting.report import write_report

        write_report(options.workdir)
    else:
        from .hosts import connect, is_first
        from .stages import run_experiment

        keep_compiled()
        if joins_others(options):
            connect(options.coordinator, options.processes, options.process)
        config, not_measured = _run_config(options, overrides)
        notes = [not_measured] * bool(not_measured and "evaluate" in stages)
        run_experiment(config, options.workdir, stages, notes)
        if not is_first():
            return
    # Name the files of the last stage.
    if stages == ["finetune"]:
        print(f"task vectors: {options.workdir / 'METHOD/seedN/TASK/vector.safetensors'}")
    if stages == ["evaluate"]:
        print(f"results: {options.workdir / 'results.json'}")
        print(f"as tables and figures: orthoreg report --workdir {options.workdir}")
    if "report" in stages:
        from .reporting.report import summary_text

        print(summary_text(options.workdir))
        print(f"report: {options.workdir / 'report.html'}")


def _run_config(options: argparse.Namespace, overrides: Sequence[str]) -> tuple[Any, str]:
    """The config of a run: from its file, from given models, or both; as `load_with_note`."""
    from .config.given import with_given
    from .config.loading import load_with_note

    named: dict[str, Any] = {name: getattr(options, name, None) for name in _GIVEN_OPTIONS}
    used = [f"--{name}" for name, value in named.items() if value]
    models, experts = named["models"], named["experts"]
    if not models and not experts:
        if used:
            raise ValueError(f"{', '.join(used)}: for --models or --experts, which are missing")
        if options.config is None:
            raise ValueError(
                "give --config; or --models TASK=MODEL ... and --base, or --experts SET and "
                "--tasks, to evaluate models that were fine-tuned elsewhere"
            )
        return load_with_note(options.config, overrides)
    if models and experts:
        raise ValueError("--models and --experts: give only one of them")
    base = named["base"]
    if experts:
        from .tasks.experts import find_experts

        tasks = [name for name in named["tasks"].split(",") if name]
        if base:
            raise ValueError("--base: not with --experts, whose base is known")
        base, found = find_experts(experts, tasks)
        models = [f"{task}={model}" for task, model in zip(tasks, found, strict=True)]
    elif named["tasks"]:
        raise ValueError("--tasks: for --experts only; --models names the task of each model")
    return with_given(options.config, models, base, named["data"], named["control"], overrides)


_GIVEN_OPTIONS = ("models", "experts", "tasks", "base", "data", "control")


def joins_others(options: argparse.Namespace) -> bool:
    """Whether this process is one of several."""
    named = (getattr(options, name, None) for name in ("coordinator", "processes", "process"))
    return getattr(options, "distributed", False) or any(value is not None for value in named)


def keep_compiled() -> None:
    """Caches compiled functions for later runs; JAX_COMPILATION_CACHE_DIR overrides the folder."""
    import jax

    from .storage import cache_folder

    settings: Any = jax.config  # its stubs lack these attributes
    if settings.jax_compilation_cache_dir is not None:
        return
    home = cache_folder()
    if home is None:
        return
    folder = home / _cpu()  # code compiled for one CPU may not run on another
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # compilation works without a cache
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _cpu() -> str:
    """A name for the instruction set of this machine's CPU."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        facts = sorted({line for line in lines if line.startswith(("flags", "Features", "model"))})
    except OSError:
        facts = [platform.processor()]
    return f"{platform.machine()}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:12]}"


def _export(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    from .publishing.export import export_model

    out = export_model(
        options.workdir,
        options.out,
        options.method,
        options.seed,
        [name for name in options.tasks.split(",") if name],
        options.forget,
        options.alpha,
        options.overwrite,
        options.layout,
    )
    _say_written(out, options.layout)


def _say_written(out: pathlib.Path, layout: str) -> None:
    from .clip.saving import OUTPUTS

    reader = OUTPUTS[layout].kind or "open_clip"
    what = "a Hugging Face CLIP directory" if reader == "CLIPModel" else f"a directory of {reader}"
    print(f"{out}: {what}; its README.md describes the model")


def _merge(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    from .publishing.merge import Data, merge_models, merge_run, merge_vectors
    from .publishing.merger_choice import MergerChoice

    keep_compiled()
    pairs = [text.partition("=") for text in options.option]
    if wrong := [key for key, equals, _ in pairs if not equals]:
        raise ValueError(f"--option {wrong[0]}: write NAME=VALUE, e.g. --option k=20")
    chosen = {key: value for key, _, value in pairs}
    choice = MergerChoice(options.merger, chosen, options.draw, options.space, options.match_norms)
    tasks = [name for name in options.tasks.split(",") if name]
    given = {name for name in _MERGE_OPTIONS if getattr(options, name) not in (None, "", False)}
    kinds = [name for name in ("workdir", "vectors", "models", "experts") if name in given]
    if len(kinds) != 1:
        raise ValueError(
            "give one of: --workdir and --method; --models MODEL MODEL ... and --base; --vectors "
            "FILE FILE ... and --base; --experts SET and --tasks"
            f"{'; only one of them at a time' if kinds else ''}"
        )
    if unused := sorted(given - {kinds[0], *_MERGE_OPTIONS[kinds[0]]}):
        names = [", ".join(f"--{name.replace('_', '-')}" for name in each)
                 for each in (unused, _MERGE_OPTIONS[kinds[0]])]  # fmt: skip
        raise ValueError(
            f"{names[0]}: cannot be combined with --{kinds[0]}, which takes {names[1]}"
        )
    if kinds == ["workdir"]:
        if not options.method:
            raise ValueError("--method: give one of the run's methods, e.g. full+orthoreg")
        out = merge_run(
            options.workdir,
            options.out,
            options.method,
            choice,
            options.seed,
            tasks,
            options.alpha,
            options.overwrite,
            options.layout,
        )
    else:
        models, base = options.models, options.base
        if kinds == ["experts"]:
            from .tasks.experts import find_experts

            base, models = find_experts(options.experts, tasks)
        if not base:
            raise ValueError("--base: give the CLIP that the models were fine-tuned from")
        data = Data(options.data or "embedded", tasks) if tasks else None
        common = (options.out, base, choice, options.alpha, data)
        written = (options.overwrite, options.layout)
        if kinds == ["vectors"]:
            out = merge_vectors(options.vectors, *common, options.any_base, *written)
        else:
            out = merge_models(models, *common, options.visual_only, *written)
    _say_written(out, options.layout)


# Options that belong to each way of naming task vectors.
_MERGE_OPTIONS: dict[str, tuple[str, ...]] = {
    "workdir": ("method", "seed", "tasks"),
    "models": ("base", "visual_only", "data", "tasks"),
    "vectors": ("base", "any_base", "data", "tasks"),
    "experts": ("data", "tasks"),
    **{name: () for name in ("method", "seed", "tasks", "base", "visual_only", "any_base", "data")},
}


def _vector(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    from .publishing.vector import write_vector

    print(write_vector(options.model, options.base, options.out, options.visual_only))


def _push(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    from .publishing.push import push_model

    print(push_model(options.model, options.to, options.private))


def _measure(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    from .publishing.measure import measure_model

    keep_compiled()
    names = [name for name in options.tasks.split(",") if name]
    print(measure_model(options.model, options.data, names, options.split, options.base))


def _init(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    from .config.template import write_template

    if options.config is None and not overrides:
        path = write_template(options.file)
        print(f"{path}: every option, at its default; change what you need")
        return
    from .config import default_config, flatten_config, load_config, override, validate

    if options.config is None:
        config = default_config()
        override(config, overrides)
        validate(config)
    else:
        config = load_config(options.config, overrides)
    path = write_template(options.file, flatten_config(config))
    print(f"{path}: every option; those that differ from the defaults are set")


COMMANDS = {
    "run": _run,
    **dict.fromkeys(STAGE_HELP, _run),
    "init": _init,
    "data": _data,
    "export": _export,
    "merge": _merge,
    "vector": _vector,
    "push": _push,
    "measure": _measure,
}
