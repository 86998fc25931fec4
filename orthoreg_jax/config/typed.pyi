"""The options of a config and their types, for editors and type checkers.

What `default_config` returns is a ConfigDict; to them it is `Options`. The tests hold names and
types against the defaults in `options.py`.
"""

from typing import Never

from ml_collections import ConfigDict

class Section(ConfigDict):
    """Options that can be set: those that are declared, and no others."""

    def __setattr__(self, name: str, value: Never) -> None: ...

class TauJacobian(Section):
    """Options of the penalty +taujp."""

    strength: float
    batch_size: int

class Tak(Section):
    """Options of the penalty +tak."""

    strength: float
    images: int
    normalized: bool
    projection: float

class Drift(Section):
    """Options of the penalty +drift."""

    strength: float
    images: int
    normalized: bool
    projection: float

class Penalty(Section):
    """Options of OrthoReg, and those of its rivals."""

    strength: float
    form: str
    precision: str
    text_tensors: bool
    taujp: TauJacobian
    tak: Tak
    drift: Drift

class OneMethod(Section):
    """What one method has of its own."""

    learning_rate: float
    strength: float

class PerMethod(Section):
    """One method's own, by its name."""

    def __getitem__(self, key: str) -> OneMethod: ...

class Linearized(Section):
    """Options of the mode linearized."""

    normalized: bool

class Delta(Section):
    """Options of the mode delta."""

    low: float
    high: float
    power: float
    weight: float

class Lora(Section):
    """Options of the mode lora."""

    rank: int
    alpha: float
    placement: str

class Training(Section):
    """Options of fine-tuning."""

    steps: int
    epochs: float
    batch_size: int
    learning_rate: float
    warmup: float
    optimizer: str
    weight_decay: float
    clip_norm: float
    crop_scale: float
    dtype: str
    accumulate: int
    fsdp: int
    remat: bool
    log_every: int
    tensorboard: bool
    on_metrics: str
    checkpoint_minutes: float
    checkpoint_every: int
    keep_checkpoints: int

class Evaluation(Section):
    """Options of what is measured, and how."""

    batch_size: int
    device_megabytes: int
    alpha_search: str
    relative_lengths: tuple[float, ...]
    refinements: int
    per_task_rounds: int
    other_search: bool
    alphas: tuple[float, ...]
    control_shares: tuple[float, ...]
    max_val_images: int
    max_test_images: int
    analogies: tuple[str, ...]
    disentanglement_tasks: tuple[str, ...]
    disentanglement_alphas: tuple[float, ...]
    max_disentanglement_images: int
    feature_images: int

class Options(Section):
    """All options of an experiment."""

    model: str
    data: str
    tasks: tuple[str, ...]
    control: str
    methods: tuple[str, ...]
    given: tuple[str, ...]
    seeds: tuple[int, ...]
    matmul_precision: str
    penalty: Penalty
    per_method: PerMethod
    linearized: Linearized
    lora: Lora
    delta: Delta
    training: Training
    evaluation: Evaluation
