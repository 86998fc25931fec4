"""ViT-B/32, linearised fine-tuning (TTA), without and with the penalty.

Command:   orthoreg run --config configs/vit_b32_linearized.py --workdir runs/vit_b32_linearized
           (images below data/; one cell: --config.methods=linearized+orthoreg)
Hardware:  proposed: one device of 16 GB; not measured.
Time:      about 4 hours for both cells at the paper's own rate (see paper.py); not measured.
Expected:  the paper: 74.68 Abs, 85.27 Norm; negation 11.47 / 63.99;
           with OrthoReg 76.35 Abs, 91.81 Norm; negation 11.39 / 64.07.
           (Zero-shot control: 66.70 there, about 63.4 elsewhere; see paper.py.)

Learning rate as for `full`, as in the recipe; lambda not published: that of `full`, whose
updates have the same shapes and about the same length.
"""

import pathlib

from ml_collections import ConfigDict

from orthoreg_jax.config import load_config


def get_config() -> ConfigDict:
    """Changes from paper.py."""
    config = load_config(pathlib.Path(__file__).with_name("paper.py"))
    config.model = "ViT-B/32"
    config.methods = ("linearized", "linearized+orthoreg")
    config.training.learning_rate = 1e-5
    config.penalty.strength = 10.0
    return config
