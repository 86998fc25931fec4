"""The command `orthoreg`: runs an experiment from its config, whole or stage by stage.

Heavy imports wait until the arguments are known, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import errno
import hashlib
import os
import pathlib
import platform
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from .shipped_configs import locate_config

STAGES = {
    "finetune": "fine-tune every task of the config and save its task vector",
    "evaluate": "measure single tasks, addition and negation; writes results.json",
    "report": "draw plots and write report.html from results.json",
}
EPILOG = """\
examples:
  orthoreg run --config embedded --workdir runs/embedded
  orthoreg run --config embedded --workdir runs/strong --config.penalty.strength=30
  orthoreg init mine.py
  orthoreg report --workdir runs/embedded
  orthoreg data check --config embedded
  orthoreg data prepare --tasks dtd,svhn --data data
  orthoreg export --workdir runs/embedded --method full --out added
  orthoreg merge --workdir runs/embedded --method full --merger tsv_m --out merged
  orthoreg merge --models A B C --base ViT-B/32 --merger tsv_m --alpha 1 --out merged
  orthoreg vector --model A --base ViT-B/32 --out a.safetensors
  orthoreg measure --model merged --data embedded

Every stage skips finished work. To resume an interrupted run, repeat the command.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 after printing what went wrong."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    overrides = [text.removeprefix("--config.") for text in rest if text.startswith("--config.")]
    unknown = [text for text in rest if not text.startswith("--config.")]
    spaced = [text for text in overrides if "=" not in text]
    if spaced and unknown:
        parser.error(f"write --config.{spaced[0]}=VALUE, with an equals sign and no space")
    if unknown:
        meant = [f"--config.{text[2:]}" for text in unknown if "." in text and text[:2] == "--"]
        hint = f"; did you mean {' '.join(meant)}?" if meant else ""
        parser.error(f"unknown arguments: {' '.join(unknown)}{hint}")
    if overrides and "config" not in options:
        parser.error(f"{options.command} reads the run folder and takes no --config.* options")
    if getattr(options, "config", None) is not None and not _joins_others(options):
        try:  # the message of `load_config`, without its second of imports
            locate_config(options.config)
        except ValueError as error:
            print(f"orthoreg: {error}", file=sys.stderr)
            return 1
    if _joins_others(options):
        # When a process ends, JAX's C++ logs pages before our line can say which one it was.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    code, reason = _act(options, overrides)
    from .hosts import leave

    leave(code, reason)
    return code


def _act(options: argparse.Namespace, overrides: Sequence[str]) -> tuple[int, str]:
    """Runs a command and prints what went wrong; returns the exit code and that message."""
    import absl.logging

    from .extras import MissingExtraError, explained
    from .hosts import StoppedError, blame
    from .storage import StorageError
    from .training.finetune import DivergedError

    # Orbax logs a traceback of what it raises; what is raised is reported below.
    absl.logging.set_verbosity(absl.logging.FATAL)
    code, reason = 0, ""
    try:
        with explained(f"orthoreg {options.command}"):
            COMMANDS.get(options.command, _run)(options, overrides)
        sys.stdout.flush()
    except (ValueError, StorageError, DivergedError, MissingExtraError) as error:
        code, reason = 1, str(error)
    except StoppedError as stopped:
        code, reason = 128 + stopped.number, f"{stopped}; repeat the command to resume"
    except BrokenPipeError:  # whoever reads the output has seen enough, as `head` does
        _close_output()
        return 1, "its output was closed"
    except OSError as error:  # a path that cannot be, a disk or folder that is gone
        code, reason = 1, _refusal(error)
    except MemoryError as error:
        code = 1
        reason = f"not enough memory ({error}); lower training.batch_size or evaluation.batch_size"
    except KeyboardInterrupt:
        code = 130
        reason = "stopped; finished work is kept; repeat the command to resume"
    except Exception as error:  # ours, or that of a process that this one worked with
        blame()
        traceback.print_exc()
        return 1, f"{type(error).__name__}: {error}"
    if code:
        print(f"orthoreg: {reason}", file=sys.stderr, flush=True)
    return code, reason


def _close_output() -> None:
    """Redirects standard output to nowhere, so that flushing at exit cannot fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refusal(error: OSError) -> str:
    """What the operating system refused, and for which file."""
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, FileNotFoundError):
        return "the working directory no longer exists; change to another one"
    if error.errno == errno.ENOSPC:
        _close_output()
        return f"standard output: {error.strerror}"
    return str(error)


def _data(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """`data check` and `data prepare`."""
    from .tasks.catalogue import BENCHMARKS
    from .tasks.check import check_tasks, prepare_task
    from .tasks.preparing import prepare_tasks
    from .tasks.task import data_directory

    if (options.config is None) == (options.tasks is None):
        raise ValueError(
            "give --config, or --tasks (and --data), e.g. --tasks dtd,svhn --data data"
        )
    if options.config is not None:
        from .config import load_config

        config = load_config(options.config, overrides)
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
        raise ValueError(f"{len(missing)} of {checked} tasks are missing or wrong: {names}")


def _run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    stages = list(STAGES) if options.command == "run" else [options.command]
    if stages == ["report"]:
        from .reporting.report import write_report

        write_report(options.workdir)
    else:
        from .config import load_config
        from .hosts import connect, is_first
        from .stages import run_experiment

        _keep_compiled()
        if _joins_others(options):
            connect(options.coordinator, options.processes, options.process)
        run_experiment(load_config(options.config, overrides), options.workdir, stages)
        if not is_first():
            return
    if "report" in stages:
        from .reporting.report import summary_text

        print(summary_text(options.workdir))
        print(f"report: {options.workdir / 'report.html'}")


def _joins_others(options: argparse.Namespace) -> bool:
    """Whether this is one of several processes."""
    named = (getattr(options, name, None) for name in ("coordinator", "processes", "process"))
    return getattr(options, "distributed", False) or any(value is not None for value in named)


def _keep_compiled() -> None:
    """Caches compiled functions for the next run; JAX_COMPILATION_CACHE_DIR overrides where."""
    import jax

    from .storage import cache_folder

    settings: Any = jax.config  # whose attributes its stubs leave out
    if settings.jax_compilation_cache_dir is not None:
        return
    home = cache_folder()
    if home is None:
        return
    folder = home / _cpu()  # code for one CPU need not run on another
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # it works without
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
    )
    print(f"{out}: a Hugging Face CLIP directory; its README.md describes the model")


def _merge(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    from .publishing.merge import Data, MergerChoice, merge_models, merge_run, merge_vectors

    _keep_compiled()
    pairs = [text.partition("=") for text in options.option]
    if wrong := [key for key, equals, _ in pairs if not equals]:
        raise ValueError(f"--option {wrong[0]}: write NAME=VALUE, e.g. --option k=20")
    chosen = {key: value for key, _, value in pairs}
    choice = MergerChoice(options.merger, chosen, options.draw)
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
        if kinds == ["vectors"]:
            out = merge_vectors(options.vectors, *common, options.any_base, options.overwrite)
        else:
            out = merge_models(models, *common, options.visual_only, options.overwrite)
    print(f"{out}: a Hugging Face CLIP directory; its README.md describes the model")


# The options that go with each way to name task vectors.
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

    _keep_compiled()
    names = [name for name in options.tasks.split(",") if name]
    print(measure_model(options.model, options.data, names, options.split, options.base))


def _init(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    from .config.template import write_template

    print(f"{write_template(options.file)}: every option, at its default; change what you need")


COMMANDS = {
    "init": _init,
    "data": _data,
    "export": _export,
    "merge": _merge,
    "vector": _vector,
    "push": _push,
    "measure": _measure,
}


class _Versions(argparse.Action):
    """Versions are looked up when they are asked for: it takes longer than all of --help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from .versions import versions_text

        try:
            print(versions_text(), flush=True)
        except BrokenPipeError:  # whoever reads it has seen enough, as `head` does
            _close_output()
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    # allow_abbrev off: "--conf.x" must be an error, not a prefix of --config.
    parser = argparse.ArgumentParser(
        prog="orthoreg",
        description="OrthoReg and task arithmetic: fine-tune, add, negate and report.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    text = "print the versions of what is at work, and end"
    parser.add_argument("--version", nargs=0, action=_Versions, help=text)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in {"run": "run all stages in order", **STAGES}.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name != "report":
            _add_config(command)
            _add_hosts(command)
        command.add_argument(
            "--workdir", required=True, type=pathlib.Path, help="folder of this run"
        )
    text = "write a config file to begin from: every option with its comment"
    init = commands.add_parser("init", help=text, description=text, allow_abbrev=False)
    init.add_argument("file", type=pathlib.Path, metavar="FILE.py", help="new")
    _add_export(commands)
    _add_merge(commands)
    _add_vector(commands)
    _add_push(commands)
    _add_measure(commands)
    text = "check the data of tasks, or fetch what is missing of it from the hub"
    data = commands.add_parser("data", help=text, description=text, allow_abbrev=False)
    data.add_argument(
        "action",
        choices=("check", "prepare"),
        help="check: list what is found, with counts, hashes and duplicates; "
        "prepare: fetch what is missing",
    )
    _add_config(data, required=False)
    add = data.add_argument
    add("--tasks", help="instead of a config's: e.g. dtd,svhn; 8, 14 or 20 for the field's lists")
    add("--data", default="data", help="their folder, with --tasks; data")
    add("--tfds", action="store_true", help="prepare by tensorflow-datasets, not from the hub")
    return parser


def _add_export(commands: Any) -> None:
    text = "export an edited model of a finished run as a Hugging Face directory with a model card"
    export = commands.add_parser("export", help=text, description=text, allow_abbrev=False)
    add = export.add_argument
    add("--workdir", required=True, type=pathlib.Path, help="folder of the run")
    add("--out", required=True, type=pathlib.Path, help="directory to write; must be new")
    add("--overwrite", action="store_true", help="replace a model that an earlier command wrote")
    add("--method", required=True, help="one of the run's methods, e.g. full+orthoreg")
    add("--seed", type=int, help="one of the run's seeds (default: the first)")
    add("--tasks", default="", help="tasks to add, e.g. mnist,emoji (default: all of the run)")
    add("--forget", default="", metavar="TASK", help="task to subtract instead")
    add("--alpha", type=float, help="default: as chosen on validation; 1 for a single task")


def _add_merge(commands: Any) -> None:
    text = "merge task vectors of a run, of models or of files into a CLIP directory with its card"
    merge = commands.add_parser("merge", help=text, description=text, allow_abbrev=False)
    add = merge.add_argument
    add("--merger", required=True, help="average, task_arithmetic, ties, dare, tsv_m, ...")
    add("--option", nargs="*", default=[], metavar="NAME=VALUE", help="parameters, e.g. k=30")
    add("--out", required=True, type=pathlib.Path, help="directory to write; must be new")
    add("--overwrite", action="store_true", help="replace a model that an earlier command wrote")
    add("--alpha", type=float, help="of θ₀ + α τ (default: chosen on validation)")
    add("--draw", type=int, default=0, help="seed of mergers that draw random numbers (default: 0)")
    add("--tasks", default="", help="for a run: tasks to merge (default: all); otherwise: tasks "
        "to choose alpha on, one per model or vector in the same order")  # fmt: skip
    run = merge.add_argument_group("to merge a run").add_argument
    run("--workdir", type=pathlib.Path, help="folder of the run")
    run("--method", default="", help="one of the run's methods, e.g. full+orthoreg")
    run("--seed", type=int, help="one of the run's seeds (default: the first)")
    files = merge.add_argument_group("to merge models or vectors").add_argument
    files("--models", nargs="+", metavar="MODEL", help="fine-tuned CLIPs, image towers or LoRA "
          "adapters: directories, safetensors files or hub names, with @REVISION")  # fmt: skip
    files("--experts", default="", metavar="SET", help="published models of the --tasks, on the "
          "hub: fusionbench/ViT-B/32, .../ViT-B/16, .../ViT-L/14")  # fmt: skip
    files("--vectors", nargs="+", metavar="FILE", type=pathlib.Path, help="files of task vectors")
    files("--base", "--model", dest="base", default="", help="the CLIP they were fine-tuned from")
    files("--visual-only", action="store_true", help="ignore the models' text towers")
    files("--any-base", action="store_true", help="accept vectors of another or an unknown base")
    files("--data", default="", help="data to choose alpha on: embedded (default), or a folder")


def _add_vector(commands: Any) -> None:
    text = "write a fine-tuned model's task vector (its difference from the base) as safetensors"
    vector = commands.add_parser("vector", help=text, description=text, allow_abbrev=False)
    add = vector.add_argument
    add("--model", required=True, help="a CLIP, image tower or LoRA adapter; see merge --models")
    add("--base", required=True, help="the CLIP it was fine-tuned from")
    add("--out", required=True, type=pathlib.Path, help="file to write; must be new")
    add("--visual-only", action="store_true", help="ignore the model's text tower")


def _add_push(commands: Any) -> None:
    text = "upload a directory that export or merge wrote to the hub, with its card"
    push = commands.add_parser("push", help=text, description=text, allow_abbrev=False)
    add = push.add_argument
    add("--model", required=True, type=pathlib.Path, help="directory to upload")
    add("--to", required=True, metavar="USER/NAME", help="hub repository; created if missing")
    add("--private", action="store_true", help="create it as a private repository")


def _add_measure(commands: Any) -> None:
    text = "print a model's accuracies, using the zero-shot head from its own text tower"
    measure = commands.add_parser("measure", help=text, description=text, allow_abbrev=False)
    add = measure.add_argument
    add("--model", required=True, help="a CLIP directory, embedded, ViT-B/32, ... or a hub name")
    add("--base", default="", help="for an image tower or adapter: the CLIP it was fine-tuned from")
    add("--data", default="embedded", help="embedded, or a folder; see `data` in a config")
    add("--tasks", default="", help="e.g. mnist,emoji (default: all in the data's tasks.json)")
    add("--split", default="test", choices=("train", "val", "test"), help="default: test")


def _add_config(command: argparse.ArgumentParser, required: bool = True) -> None:
    command.add_argument(
        "--config",
        required=required,
        type=pathlib.Path,
        help="a Python file with get_config(), or the name of a config in the package, e.g. "
        "embedded; override an option with "
        "--config.NAME=VALUE, e.g. --config.training.steps=200",
    )


def _add_hosts(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--distributed",
        action="store_true",
        help="join the other processes of this job, as TPU pods, SLURM or Open MPI announce them",
    )
    command.add_argument("--coordinator", metavar="HOST:PORT", help="address of the first process")
    command.add_argument("--processes", type=int, help="number of processes")
    command.add_argument("--process", type=int, help="index of this process, from 0")


if __name__ == "__main__":
    sys.exit(main())
