r"""Turns the field's torch checkpoints into task vectors for this package.

    pip install torch
    python experiments/convert_checkpoints.py --pretrained zeroshot.pt --finetuned finetuned.pt \
        --backbone ViT-B/32 --out vector.safetensors

Reads state dicts in open_clip's or transformers' layout, as training code saves them: of the image
encoder or the whole model, with any prefix ("module.", "image_encoder.model."). Other tensors are
listed as left out. Task-arithmetic code, merge-and-rebase and OrthoReg publish such files. Only
tensors are read (`weights_only=True`); files with pickled modules are refused, because loading
them would run whatever code they name. Without --pretrained, OpenAI's weights of --backbone are
subtracted. The vector's file identifies the weights it is the difference to, by a hash of their
image tower, so that `orthoreg merge --vectors` recognises its base.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from typing import Any

import jax
import numpy as np
import torch

from orthoreg_jax.arithmetic.paths import unflatten
from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.clip.config import PRESETS, ClipConfig
from orthoreg_jax.clip.differences import TOWER, hash_tower
from orthoreg_jax.clip.stored import StoredClip
from orthoreg_jax.clip.tensors import Arrays
from orthoreg_jax.clip.weights import Weights, param_shapes
from orthoreg_jax.trees import save_tree


def read_state(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Tensors of a state dict, by key."""
    if not path.is_file():
        raise SystemExit(f"{path}: no such file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle and torch raise their own kinds
        raise SystemExit(
            f"{path}: does not contain only tensors ({type(error).__name__}); load it once with "
            "the code that wrote it and save `module.state_dict()`"
        ) from error
    if isinstance(found, dict) and "state_dict" in found:
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise SystemExit(f"{path}: holds a {type(found).__name__}, expected a state dict")
    others = [str(key) for key, value in found.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise SystemExit(
            f"{path}: has entries that are not tensors: {', '.join(others[:5])}; save only tensors"
        )
    return {
        key: (value.float() if value.is_floating_point() else value).numpy()
        for key, value in found.items()
    }


def read_tower(path: pathlib.Path, config: ClipConfig) -> Weights:
    """Reads the image tower in our layout."""
    try:
        stored = StoredClip(Arrays(read_state(path)), config, based=True)
    except ValueError as error:
        raise SystemExit(f"{path}: {error}") from error
    wanted = [name for name in param_shapes(config) if name.startswith("visual/")]
    if missing := [name for name in wanted if name not in stored.paths]:
        raise SystemExit(f"{path}: holds an image tower without {', '.join(missing)}")
    unused = [*stored.ignored, *(name for name in stored.paths if name not in wanted)]
    if unused:
        more = f" and {len(unused) - 6} more" if len(unused) > 6 else ""
        print(f"{path}: left out {', '.join(unused[:6])}{more}", file=sys.stderr)
    visual: Weights = unflatten({name: stored.read(name) for name in wanted})["visual"]
    return visual


def main() -> None:
    """Converts one task vector."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--finetuned", type=pathlib.Path, required=True)
    parser.add_argument("--pretrained", type=pathlib.Path)
    parser.add_argument("--backbone", default="ViT-B/32", choices=list(PRESETS))
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    config = PRESETS[options.backbone]
    after = read_tower(options.finetuned, config)
    before: Any
    if options.pretrained:
        before = read_tower(options.pretrained, config)
    else:
        before = load_checkpoint(options.backbone).params["visual"]
    vector = jax.tree.map(np.subtract, after, before)
    save_tree(options.out, {"visual": vector}, {TOWER: hash_tower(before)})
    length = np.sqrt(sum(float(np.sum(leaf**2)) for leaf in jax.tree.leaves(vector)))
    print(f"{options.out}: task vector of length {length:.3f}")


if __name__ == "__main__":
    main()
