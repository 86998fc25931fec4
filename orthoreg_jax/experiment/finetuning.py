"""The stage `finetune`: every task of every method and seed, one compiled step per method."""

from __future__ import annotations

import json

import jax

from orthoreg_jax.arithmetic.low_rank import dense
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.storage import save_tree
from orthoreg_jax.tasks.loading import Feed
from orthoreg_jax.training.finetune import finetune, remove_states
from orthoreg_jax.training.step import Penalty, init_state, make_optimizer, make_train_step

from .setup import Experiment, Method, open_folder


def finetune_all(experiment: Experiment) -> None:
    """Fine-tunes what is not finished yet and saves each task vector.

    Raises:
      DivergedError: a loss that is not finite.
      StorageError: a file cannot be written.
    """
    open_folder(experiment)
    for method in experiment.methods:
        todo = [
            (seed, task)
            for seed in experiment.config.seeds
            for task in experiment.config.tasks
            if not experiment.vector_path(method.name, seed, task).is_file()
        ]
        if todo:
            _finetune_method(experiment, method, todo)


def _finetune_method(experiment: Experiment, method: Method, todo: list[tuple[int, str]]) -> None:
    options, shardings = experiment.config.training, experiment.shardings
    optimizer = make_optimizer(
        method.learning_rate,
        options.warmup_steps,
        options.steps,
        options.weight_decay,
        options.clip_norm,
    )
    penalty = Penalty(method.strength, experiment.config.penalty.form, VISUAL_MATRICES)
    step = make_train_step(
        method.mode,
        experiment.apply,
        optimizer,
        experiment.preprocessing.normalize,
        penalty if method.strength else None,
        shardings,
        options.accumulate,
    )
    pretrained = experiment.checkpoint.params["visual"]
    params0 = jax.device_put(pretrained, shardings.weights(pretrained))
    for seed, task in todo:
        state = init_state(method.mode, optimizer, params0, jax.random.key(seed))
        train = experiment.tasks[task].splits["train"]
        feed = Feed(train, experiment.preprocessing, options.batch_size, seed, options.crop_scale)
        folder = experiment.task_folder(method.name, seed, task)
        state = finetune(
            step,
            jax.device_put(state, shardings.weights(state)),
            params0,
            experiment.heads[task],
            feed,
            steps=options.steps,
            shardings=shardings,
            folder=folder,
            label=f"finetune {method.name} seed {seed} {task}",
            log_every=options.log_every,
            checkpoint_every=options.checkpoint_every,
        )
        vector = dense(method.mode.delta(state.trainable, params0))
        facts = {"task": task, "method": method.name, "seed": seed}
        facts["pretrained_sha256"] = experiment.checkpoint.sha256
        save_tree(
            experiment.vector_path(method.name, seed, task),
            {"visual": vector},
            # One text: the file's bytes would otherwise depend on the order of the entries.
            {"made_by": json.dumps(facts)},
        )
        # Numbers measured on an older vector of this task no longer hold.
        experiment.evaluation_path(method.name, seed).unlink(missing_ok=True)
        remove_states(folder)
