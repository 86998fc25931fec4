"""The command `orthoreg`: runs an experiment from its config, whole or stage by stage.

Heavy imports wait until the arguments are known, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Sequence

from .arguments import close_output, make_parser
from .commands import COMMANDS, joins_others
from .completion import completion_script, subparsers
from .shipped_configs import locate_config
from .words import nearest


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 1 after printing what went wrong."""
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    overrides = [text.removeprefix("--config.") for text in rest if text.startswith("--config.")]
    unknown = [text for text in rest if not text.startswith("--config.")]
    spaced = [text for text in overrides if "=" not in text]
    if spaced and unknown:
        parser.error(f"write --config.{spaced[0]}=VALUE, with an equals sign and no space")
    if unknown:
        parser.error(f"unknown arguments: {' '.join(unknown)}{_meant(parser, options, unknown)}")
    if overrides and "config" not in options:
        parser.error(f"{options.command} takes no config, and so no --config.* options")
    if options.command == "completion":  # before any import: shells read it as they start
        print(completion_script(parser, options.shell), end="")
        return 0
    if getattr(options, "config", None) is not None and not joins_others(options):
        try:  # gives the message of `load_config` without its second of imports
            locate_config(options.config)
        except ValueError as error:
            print(f"orthoreg: {error}", file=sys.stderr)
            return 1
    if joins_others(options):
        # JAX's C++ code logs pages when a process ends, before our line can say which one it was.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    code, reason = _act(options, overrides)
    from .hosts import leave

    leave(code, reason)
    return code


def _meant(
    parser: argparse.ArgumentParser, options: argparse.Namespace, unknown: Sequence[str]
) -> str:
    """Question about what unknown arguments may stand for; "" if nothing is like them."""
    from .config.unknown import meant_options
    from .option_list import parse_options

    command = subparsers(parser)[options.command]
    command = subparsers(command).get(getattr(options, "action", ""), command)
    flags = [text for action in command._actions for text in action.option_strings]
    found: list[str] = []
    for text in unknown:
        name, equals, value = text.partition("=")
        if not name.startswith("--"):
            continue
        if near := nearest(name, flags, likeness=0.8):
            found.append(near + equals + value)
        elif "config" in options:
            keys = meant_options(name[2:], [option.name for option in parse_options()])
            found += [f"--config.{key}={value or 'VALUE'}" for key in keys]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _act(options: argparse.Namespace, overrides: Sequence[str]) -> tuple[int, str]:
    """Runs a command and prints what went wrong; returns the exit code and that message."""
    import absl.logging

    from .extras import MissingExtraError, explained
    from .hosts import StoppedError, blame
    from .storage import StorageError
    from .training.finetune import DivergedError

    # Orbax logs a traceback of every error it raises; those errors are reported below.
    absl.logging.set_verbosity(absl.logging.FATAL)
    code, reason = 0, ""
    try:
        with explained(f"orthoreg {options.command}"):
            COMMANDS[options.command](options, overrides)
        sys.stdout.flush()
    except (ValueError, StorageError, DivergedError, MissingExtraError) as error:
        code, reason = 1, str(error)
    except StoppedError as stopped:
        code, reason = 128 + stopped.number, f"{stopped}; repeat the command to resume"
    except BrokenPipeError:  # the reader has seen enough, like `head`
        close_output()
        return 1, "its output was closed"
    except OSError as error:  # an invalid path, or a disk or folder that no longer exists
        code, reason = 1, _refusal(error)
    except MemoryError as error:
        code = 1
        reason = f"not enough memory ({error}); lower training.batch_size or evaluation.batch_size"
    except KeyboardInterrupt:
        code = 130
        reason = "stopped; finished work is kept; repeat the command to resume"
    except Exception as error:  # our own, or caused by another process of this run
        blame()
        traceback.print_exc()
        return 1, f"{type(error).__name__}: {error}"
    if code:
        print(f"orthoreg: {reason}", file=sys.stderr, flush=True)
    return code, reason


def _refusal(error: OSError) -> str:
    """What the operating system refused, and for which file."""
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, FileNotFoundError):
        return "the working directory no longer exists; change to another one"
    if error.errno == errno.ENOSPC:
        close_output()
        return f"standard output: {error.strerror}"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
