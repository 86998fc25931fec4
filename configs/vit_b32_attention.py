"""ViT-B/32, attention alone (ATT-FT), without and with the penalty.

Command:   orthoreg run --config configs/vit_b32_attention.py --workdir runs/vit_b32_attention
           (images below data/; one cell: --config.methods=attention+orthoreg)
Hardware:  proposed: one device of 16 GB; not measured.
Time:      about 1.9 hours for both cells at the paper's own rate (see paper.py); not measured.
Expected:  the paper: 78.07 Abs, 86.99 Norm; negation 19.39 / 64.90;
           with OrthoReg 80.87 Abs, 99.76 Norm; negation 15.67 / 64.16.
           (Zero-shot control: 66.70 there, about 63.4 elsewhere; see paper.py.)

Learning rate and lambda not published: those of `full`, of whose matrices it trains some.
"""

import pathlib

from ml_collections import ConfigDict

from orthoreg_jax.config import load_config


def get_config() -> ConfigDict:
    """Changes from paper.py."""
    config = load_config(pathlib.Path(__file__).with_name("paper.py"))
    config.model = "ViT-B/32"
    config.methods = ("attention", "attention+orthoreg")
    config.training.learning_rate = 1e-5
    config.penalty.strength = 10.0
    return config
