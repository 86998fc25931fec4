"""ViT-B/16, attention alone (ATT-FT), without and with the penalty.

Command:   orthoreg run --config configs/vit_b16_attention.py --workdir runs/vit_b16_attention
           (images below data/; one cell: --config.methods=attention+orthoreg)
Hardware:  proposed: one device of 24 GB; not measured.
Time:      about 8 hours for both cells at the paper's own rate (see paper.py); not measured.
Expected:  the paper: 80.71 Abs, 87.64 Norm; negation 19.20 / 67.75;
           with OrthoReg 83.37 Abs, 98.77 Norm; negation 14.78 / 66.81.

Learning rate and lambda not published: those of `full`, of whose matrices it trains some.
"""

import pathlib

from ml_collections import ConfigDict

from orthoreg_jax.config import load_config


def get_config() -> ConfigDict:
    """Changes from paper.py."""
    config = load_config(pathlib.Path(__file__).with_name("paper.py"))
    config.model = "ViT-B/16"
    config.methods = ("attention", "attention+orthoreg")
    config.training.learning_rate = 1e-5
    config.penalty.strength = 10.0
    return config
