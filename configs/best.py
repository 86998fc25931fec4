"""The composition with the highest Abs measured so far: plain full fine-tuning, merged by CART.

Command:   orthoreg run --config configs/best.py --workdir runs/best
           orthoreg merge --workdir runs/best --method full --merger cart --out runs/best/merged
Hardware:  CPU, 2 cores; no network. About ten minutes.
Expected:  Abs 75.8 on eight embedded tasks, where task arithmetic has 72.4 (three seeds):
           experiments/results/mergers.md, which has every merger with and without OrthoReg.
"""

import pathlib

from ml_collections import ConfigDict

from orthoreg_jax.config import load_config


def get_config() -> ConfigDict:
    """Changes from embedded_full.py."""
    config = load_config(pathlib.Path(__file__).with_name("embedded_full.py"))
    config.methods, config.seeds = ("full",), (0,)
    return config
