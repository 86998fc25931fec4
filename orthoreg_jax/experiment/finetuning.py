"""The stage `finetune`: every task of every method and seed, one compiled step per method."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from orthoreg_jax.arithmetic.low_rank import dense
from orthoreg_jax.arithmetic.paths import unflatten
from orthoreg_jax.arithmetic.types import TaskVector
from orthoreg_jax.clip.weights import TEXT, beside_text_tensors
from orthoreg_jax.config import GIVEN
from orthoreg_jax.hosts import fetch, interruption, is_first, wait
from orthoreg_jax.progress import say
from orthoreg_jax.storage import only_one
from orthoreg_jax.time_left import Plan
from orthoreg_jax.training.finetune import Job, finetune, has_states, remove_states
from orthoreg_jax.training.schedule import count_warmup
from orthoreg_jax.training.step import TrainState, init_state, make_optimizer, make_train_step
from orthoreg_jax.trees import save_tree

from .experiment import Experiment, Method
from .given import changed_leaves
from .other_tasks import OtherTasks, measure_curvature
from .run_folder import open_folder
from .vectors import vector_facts


def expect_finetuning(experiment: Experiment, plan: Plan) -> None:
    """Adds what is to be fine-tuned to a run's plan."""
    for method in (each for each in experiment.methods if each.name != GIVEN):
        for seed, task in _unfinished(experiment, method):
            label, steps = _label(method, seed, task), experiment.steps(task)
            plan.expect(label, method.name, steps, "fine-tuning")


def finetune_all(experiment: Experiment, plan: Plan | None = None) -> None:
    """Fine-tunes every unfinished task and saves its task vector; given models are read instead.

    Args:
      experiment: an experiment from `prepare`.
      plan: the whole run's plan, for the time left.

    Raises:
      DivergedError: a loss is not finite.
      StoppedError: SIGTERM or Ctrl-C came; progress so far is saved.
      StorageError: a file cannot be written, or another process is training a method.
    """
    open_folder(experiment)
    wait("folder")  # every process looks before any writes
    for method in experiment.methods:
        todo = _unfinished(experiment, method)
        finished = [each for each in _each(experiment) if each not in todo]
        # Left by a process killed after it wrote a vector and before it deleted its states.
        left = [(seed, task) for seed, task in finished
                if has_states(experiment.task_folder(method.name, seed, task))]  # fmt: skip
        with contextlib.ExitStack() as locks:
            for seed in dict([*todo, *left]) if is_first() else ():
                locks.enter_context(only_one(experiment.folder / method.name / f"seed{seed}"))
            for seed, task in left if is_first() else ():
                remove_states(experiment.task_folder(method.name, seed, task))
            if todo and method.name == GIVEN:
                _save_given(experiment, method, todo)
            elif todo:
                _finetune_method(experiment, method, todo, plan)
    interruption.pass_step()  # another point where all processes can agree to stop
    interruption.stop_if_due()


def _each(experiment: Experiment) -> list[tuple[int, str]]:
    """Seeds and tasks of a method."""
    return [*itertools.product(experiment.config.seeds, experiment.config.tasks)]


def _unfinished(experiment: Experiment, method: Method) -> list[tuple[int, str]]:
    return [(seed, task) for seed, task in _each(experiment)
            if not experiment.vector_path(method.name, seed, task).is_file()]  # fmt: skip


def _label(method: Method, seed: int, task: str) -> str:
    return f"{method.name} seed {seed} {task}"


def _finetune_method(
    experiment: Experiment, method: Method, todo: list[tuple[int, str]], plan: Plan | None
) -> None:
    options, shardings = experiment.config.training, experiment.shardings

    def optimizer_of(steps: int) -> optax.GradientTransformation:
        return make_optimizer(
            method.learning_rate,
            count_warmup(options.warmup, steps),
            steps,
            options.weight_decay,
            options.clip_norm,
            options.optimizer,
        )

    step = make_train_step(
        method.mode,
        experiment.sharded_apply,
        optimizer_of(options.steps),  # any number, because it is in the state that `begin` makes
        experiment.preprocessing.normalize,
        tuple(method.penalties.values()),
        shardings,
        options.accumulate,
    )
    params = experiment.checkpoint.params
    pretrained = beside_text_tensors(params) if method.text_tensors else params["visual"]
    params0 = shardings.put_weights(pretrained)
    heads = jax.device_put(jax.device_get(experiment.heads), shardings.replicated)

    @functools.cache
    def begin(steps: int) -> Callable[[Any, Any], TrainState]:
        init = functools.partial(init_state, method.mode, optimizer_of(steps))
        placement = shardings.weights(jax.eval_shape(init, params0, jax.random.key(0)))
        return jax.jit(init, out_shardings=placement)

    curvature = functools.cache(functools.partial(measure_curvature, experiment))
    for seed, task in todo:
        interruption.stop_if_due()
        steps = experiment.steps(task)
        others = OtherTasks(experiment, task, seed, curvature)
        contexts = [penalty.prepare(others) for penalty in method.penalties.values()]
        job = Job(
            label=_label(method, seed, task),
            folder=experiment.task_folder(method.name, seed, task),
            params0=params0,
            head=heads[task],
            feed=experiment.feed(task, seed, options.batch_size),
            steps=steps,
            contexts=[
                each._replace(constant=shardings.put_weights(jax.device_get(each.constant)))
                for each in contexts
            ],
            log_every=options.log_every,
            checkpoint_every=options.checkpoint_every,
            checkpoint_minutes=options.checkpoint_minutes,
            keep_checkpoints=options.keep_checkpoints,
            tensorboard=options.tensorboard,
            on_metrics=options.on_metrics,
            plan=plan,
        )
        state = begin(steps)(params0, jax.random.key(seed))
        state = finetune(job, step, state, shardings)
        delta = method.mode.delta(state.trainable, params0)
        tower = {name: leaves for name, leaves in delta.items() if name != TEXT}
        vector = fetch(dense(tower))
        if is_first():
            save_vector(experiment, method, seed, task, vector)
            remove_states(job.folder)
    wait(f"finetuned {method.name}")


def _save_given(experiment: Experiment, method: Method, todo: list[tuple[int, str]]) -> None:
    """Saves the task vectors of models that were fine-tuned elsewhere."""
    if is_first():
        kept = changed_leaves(experiment.given.values())
        for seed, task in todo:
            interruption.stop_if_due()
            model = experiment.given[task]
            vector = unflatten({path: model.source.read(path) for path in kept})["visual"]
            save_vector(experiment, method, seed, task, vector, model.about)
            say(f"{task}: task vector of {model.name}")
    wait("given")


def save_vector(
    experiment: Experiment,
    method: Method,
    seed: int,
    task: str,
    vector: TaskVector,
    more: Mapping[str, str] | None = None,
) -> None:
    """Writes an image tower's task vector with its origin, which marks the task as finished."""
    facts = vector_facts(method.name, seed, task, experiment.checkpoint.sha256)
    facts = {**(more or {}), **facts}
    save_tree(experiment.vector_path(method.name, seed, task), {"visual": vector}, facts)
    # Numbers measured on an older vector of this task are no longer valid.
    experiment.evaluation_path(method.name, seed).unlink(missing_ok=True)
