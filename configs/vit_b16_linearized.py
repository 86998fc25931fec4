"""ViT-B/16, linearised fine-tuning (TTA), without and with the penalty.

Command:   orthoreg run --config configs/vit_b16_linearized.py --workdir runs/vit_b16_linearized
           (images below data/; one cell: --config.methods=linearized+orthoreg)
Hardware:  proposed: one device of 24 GB; not measured.
Time:      about 16 hours for both cells at the paper's own rate (see paper.py); not measured.
Expected:  the paper: 78.97 Abs, 87.48 Norm; negation 9.33 / 66.82;
           with OrthoReg 79.85 Abs, 88.02 Norm; negation 7.49 / 66.73.

Learning rate as for `full`, as in the recipe; lambda not published: that of `full`, whose
updates have the same shapes and about the same length.
"""

import pathlib

from ml_collections import ConfigDict

from orthoreg_jax.config import load_config


def get_config() -> ConfigDict:
    """Changes from paper.py."""
    config = load_config(pathlib.Path(__file__).with_name("paper.py"))
    config.model = "ViT-B/16"
    config.methods = ("linearized", "linearized+orthoreg")
    config.training.learning_rate = 1e-5
    config.penalty.strength = 10.0
    return config
