"""ViT-B/16, LoRA on attention (LoRA-ATT), without and with the penalty.

Command:   orthoreg run --config configs/vit_b16_lora.py --workdir runs/vit_b16_lora
           (images below data/; one cell: --config.methods=lora+orthoreg)
Hardware:  proposed: one device of 24 GB; not measured.
Time:      about 8 hours for both cells at the paper's own rate (see paper.py); not measured.
Expected:  the paper: 75.51 Abs, 83.17 Norm; negation 19.44 / 67.28;
           with OrthoReg 79.67 Abs, 87.70 Norm; negation 17.25 / 67.08.

Learning rate and lambda not published for this backbone: those of ViT-B/32, whose matrices have
the same shapes.
"""

import pathlib

from ml_collections import ConfigDict

from orthoreg_jax.config import load_config


def get_config() -> ConfigDict:
    """Changes from paper.py."""
    config = load_config(pathlib.Path(__file__).with_name("paper.py"))
    config.model = "ViT-B/16"
    config.methods = ("lora", "lora+orthoreg")
    config.training.learning_rate = 1e-4
    config.penalty.strength = 1.0
    return config
