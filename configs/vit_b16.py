"""The paper's tables 1 and 2 for ViT-B/16.

Command:   orthoreg run --config configs/vit_b16.py --workdir runs/vit_b16
           Some cells alone: --config.methods=full,full+orthoreg
Hardware:  proposed: one device of 24 GB; not measured.
Time:      about 42 hours for all eight cells at the paper's own rate (see paper.py); not measured.
Expected:  the paper's numbers, in experiments/published.py.

Learning rates and lambdas are not published for this backbone: those of ViT-B/32, whose matrices
have the same shapes.
"""

import pathlib

from ml_collections import ConfigDict

from orthoreg_jax.config import load_config


def get_config() -> ConfigDict:
    """Changes from paper.py."""
    config = load_config(pathlib.Path(__file__).with_name("paper.py"))
    config.model = "ViT-B/16"
    return config
