"""The paper's tables 1 and 2 for ViT-B/32: four modes, each without and with OrthoReg.

Command:   orthoreg run --config configs/paper.py --workdir runs/paper
           Images lie below data/; `orthoreg data check --config configs/paper.py` says what is
           missing. Some cells alone: --config.methods=full,full+orthoreg
Hardware:  proposed: one device of 16 GB; not measured.
Time:      16,332 steps of 128 images for the eight tasks of a cell. Full fine-tuning takes three
           forward passes an image of 8.8 (B/32), 35.1 (B/16) or 162.0 GFLOP (L/14): 0.055, 0.22 or
           1.02 EFLOP in all. The paper's 158 minutes for L/14 on Cars come to 13 TFLOP/s; at that
           rate 1.2, 4.6 or 21 hours a cell. The others by the paper's ratios: with OrthoReg x 1.12,
           linearised x 1.78, attention x 0.80 (with OrthoReg 0.84); LoRA is not reported, taken as
           attention. All eight cells: about 10 hours; not measured.
Expected:  the paper's numbers, in experiments/published.py: 70.32 Abs and 77.56 Norm for `full`,
           73.41 and 93.93 with OrthoReg. Its zero-shot accuracy of B/32 on ImageNet, the control,
           is 66.70; others report about 63.4 for the same weights and prompts. A control that is
           not 66.70 to begin with is therefore no sign of a wrong set-up.

Learning rate and lambda of `full` and `lora` are as published with the code, for ViT-B/32. Those of
the other modes are not published: the learning rate is that of `full`, as in the recipe, and so is
lambda, as linearised updates have the same shapes and about the same length, and attention's are
some of the same matrices.
"""

from ml_collections import ConfigDict

from orthoreg_jax.config import default_config
from orthoreg_jax.tasks.catalogue import BENCHMARKS


def get_config() -> ConfigDict:
    """The recipe of the paper: eight tasks, ImageNet as control."""
    config = default_config()
    config.model = "ViT-B/32"
    config.data = "data"
    config.tasks = BENCHMARKS[8]
    config.control = "imagenet"
    config.methods = (
        *("full", "full+orthoreg", "linearized", "linearized+orthoreg"),
        *("attention", "attention+orthoreg", "lora", "lora+orthoreg"),
    )
    config.penalty.strength = 10.0
    config.training.learning_rate = 1e-5
    config.per_method["lora"].learning_rate = 1e-4
    config.per_method["lora+orthoreg"].learning_rate = 1e-4
    config.per_method["lora+orthoreg"].strength = 1.0
    config.training.epochs = -1.0
    config.training.batch_size = 128
    config.training.warmup = 500
    config.training.weight_decay = 0.1
    config.training.clip_norm = 1.0
    config.evaluation.batch_size = 256
    # The authors' grid decides; what our own search finds is in a table of its own.
    config.evaluation.alpha_search = "grid"
    config.evaluation.alphas = tuple(step / 20 for step in range(21))
    config.evaluation.other_search = True
    return config
