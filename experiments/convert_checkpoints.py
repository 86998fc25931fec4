r"""Turns torch checkpoints of this field's code into task vectors of this package.

    pip install torch
    python experiments/convert_checkpoints.py --pretrained zeroshot.pt --finetuned finetuned.pt \
        --backbone ViT-B/32 --out vector.safetensors

Reads state dicts of open_clip's layout, as task-arithmetic code saves them: of the image encoder
or of the whole model, with any prefix before "visual.". Only tensors are read
(`weights_only=True`); a file that holds pickled modules is refused, because loading it would run
whatever code it names. Without --pretrained, OpenAI's weights of --backbone are subtracted.
"""

from __future__ import annotations

import argparse
import pathlib
from typing import Any

import jax
import numpy as np
import torch

from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.clip.config import PRESETS, ClipConfig
from orthoreg_jax.clip.weights import Params, visual_from_open_clip
from orthoreg_jax.storage import save_tree


def read_state(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Tensors of the image tower, their keys beginning with "visual."."""
    if not path.is_file():
        raise SystemExit(f"{path}: no such file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's and torch's own kinds
        raise SystemExit(
            f"{path}: does not hold tensors alone ({type(error).__name__}); load it once with the "
            "code that wrote it and save `module.state_dict()`"
        ) from error
    if isinstance(found, dict) and "state_dict" in found:
        found = found["state_dict"]
    if not isinstance(found, dict):
        raise SystemExit(f"{path}: holds a {type(found).__name__}, expected a state dict")
    tensors = {
        "visual." + key.partition("visual.")[2]: value.float().numpy()
        for key, value in found.items()
        if "visual." in key and isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise SystemExit(f"{path}: no key has 'visual.' in it; keys are {list(found)[:5]} ...")
    return tensors


def read_tower(path: pathlib.Path, config: ClipConfig) -> Params:
    """The image tower in our layout."""
    try:
        return visual_from_open_clip(read_state(path), config)
    except ValueError as error:
        raise SystemExit(f"{path}: {error}") from error


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
    save_tree(options.out, {"visual": vector})
    length = np.sqrt(sum(float(np.sum(leaf**2)) for leaf in jax.tree.leaves(vector)))
    print(f"{options.out}: task vector of length {length:.3f}")


if __name__ == "__main__":
    main()
