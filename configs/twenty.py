"""The field's 20 tasks, full fine-tuning without and with OrthoReg, by the recipe of paper.py.

Command:   orthoreg data prepare --config configs/twenty.py
           orthoreg run --config configs/twenty.py --workdir runs/twenty
           Other backbones: --config.model=ViT-B/16, or --config.model=ViT-L/14 with
           --config.training.accumulate=2
Hardware:  proposed: one device of 16 GB for B/32 and B/16, of 40 GB for L/14; not measured.
Time:      41,946 steps of 128 images for the tasks of a cell: 0.142, 0.57 or 2.61 EFLOP for B/32,
           B/16 or L/14; at the rate of paper.py 3, 12 or 56 hours, with OrthoReg 12 % more; not
           measured.
Expected:  not known: the paper has eight tasks.
"""

import pathlib

from ml_collections import ConfigDict

from orthoreg_jax.config import load_config
from orthoreg_jax.tasks.catalogue import BENCHMARKS


def get_config() -> ConfigDict:
    """Changes from paper.py."""
    config = load_config(pathlib.Path(__file__).with_name("paper.py"))
    config.tasks = BENCHMARKS[20]
    config.methods = ("full", "full+orthoreg")
    return config
