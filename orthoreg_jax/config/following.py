"""Options that name tasks, where `tasks` itself is replaced: they follow, and it is said."""

from __future__ import annotations

from collections.abc import Container

from ml_collections import ConfigDict


def follow_tasks(config: ConfigDict, named: Container[str] = ()) -> str:
    """Makes a config file's options fit other `tasks` than the file has.

    Tasks of disentanglement, analogies and given models that are not in `tasks` are left out, and
    so is `feature_images` with a single task.

    Args:
      config: with the new `tasks`; changed in place.
      named: options that the user set together with `tasks`; they stay as they are, to be refused
        if they do not fit.

    Returns:
      What is therefore not measured, on one line; "" if all of it is.
    """
    tasks, evaluation, left_out = config.tasks, config.evaluation, []
    if "given" not in named:
        config.given = tuple(each for each in config.given if each.partition("=")[0] in tasks)
    paired = evaluation.disentanglement_tasks
    if "evaluation.disentanglement_tasks" not in named and not {*paired} <= {*tasks}:
        kept = tuple(task for task in paired if task in tasks)
        evaluation.disentanglement_tasks = kept = kept if len(kept) > 1 else ()
        gone = [task for task in paired if task not in kept]
        others = " (name others in evaluation.disentanglement_tasks)" * (len(tasks) > 1)
        left_out.append(f"disentanglement of {', '.join(gone)}{others}")
    if "evaluation.analogies" not in named:
        fits = [{*each.split(":")} <= {*tasks} for each in evaluation.analogies]
        gone = [each for each, fit in zip(evaluation.analogies, fits, strict=True) if not fit]
        left_out += [f"the analogy {each}" for each in gone]
        evaluation.analogies = tuple(each for each in evaluation.analogies if each not in gone)
    if "evaluation.feature_images" not in named and evaluation.feature_images and len(tasks) == 1:
        evaluation.feature_images = 0
        left_out.append("specialisation, which needs two tasks")
    if not left_out:
        return ""
    return f"not measured with these tasks ({', '.join(tasks)}): {'; '.join(left_out)}"
