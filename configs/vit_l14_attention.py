"""ViT-L/14, attention alone (ATT-FT), without and with the penalty.

Command:   orthoreg run --config configs/vit_l14_attention.py --workdir runs/vit_l14_attention
           (images below data/; one cell: --config.methods=attention+orthoreg)
Hardware:  proposed: one device of 40 GB, or four of 16 GB (training.fsdp=4); not measured.
Time:      about 35 hours for both cells at the paper's own rate (see paper.py); not measured.
Expected:  the paper: 87.81 Abs, 93.59 Norm; negation 24.85 / 76.42;
           with OrthoReg 90.41 Abs, 100.05 Norm; negation 14.67 / 75.40.

Learning rate and lambda not published: those of `full`, of whose matrices it trains some.
"""

import pathlib

from ml_collections import ConfigDict

from orthoreg_jax.config import load_config


def get_config() -> ConfigDict:
    """Changes from paper.py."""
    config = load_config(pathlib.Path(__file__).with_name("paper.py"))
    config.model = "ViT-L/14"
    config.methods = ("attention", "attention+orthoreg")
    config.training.learning_rate = 1e-5
    config.penalty.strength = 10.0
    config.training.batch_size = 128  # the paper: 64, accumulated twice
    config.training.accumulate = 2
    return config
