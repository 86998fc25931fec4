"""Every option of an experiment, with its default; config files change what they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ml_collections import ConfigDict

if TYPE_CHECKING:
    from .typed import Options  # names and types, for editors
else:
    Options = ConfigDict

PLUS = "+"
ORTHOREG = PLUS + "orthoreg"
GIVEN = "given"  # the method of models that were fine-tuned elsewhere
DTYPES = ("float32", "bfloat16")
PRECISIONS = ("highest", "high", "default")
SEARCHES = ("refined", "grid")


def default_config() -> Options:
    """The default of every option. There are no others: unknown keys are errors.

    Examples:
      >>> config = oj.default_config()
      >>> config.tasks, config.penalty.strength = ("emoji", "flags"), 0.1
    """
    from orthoreg_jax.training.modes import MODES
    from orthoreg_jax.training.penalties import PENALTIES

    config = ConfigDict()
    # "embedded", a folder with a Hugging Face CLIP, a preset such as "ViT-B/32", or a hub name.
    config.model = "embedded"
    # "embedded", or a folder whose tasks.json says where each task's images are (arrays, folders,
    # tfds sets, another data folder); the field's tasks need no entry.
    config.data = "embedded"
    # Names of the tasks to fine-tune, add and negate.
    config.tasks = ("mnist", "fashion_mnist")
    # Task whose accuracy negation must preserve; never trained on.
    config.control = "concepts"
    # Ways to fine-tune: a mode, with any of "+orthoreg", "+taujp", "+tak" and "+drift" behind it,
    # in this order, for penalties. Modes: full, linearized, attention, lora, delta. Or "given",
    # which trains nothing and reads the models of `given`.
    config.methods = ("full", "full+orthoreg")
    # "TASK=MODEL" for every task, used by the method "given": fine-tuned CLIPs, image towers or
    # LoRA adapters (directories, safetensors files, hub names), or files of task vectors.
    config.given = ()
    # Each seed fixes a run's batches and augmentation.
    config.seeds = (0,)

    # Precision of float32 matrix products in all stages: "highest", "high" or "default". The last
    # two are faster on TPUs and recent GPUs, because they round the factors to three bfloat16
    # numbers or to one (on GPUs to TF32). The penalty has its own option.
    config.matmul_precision = "highest"

    config.penalty = penalty = ConfigDict()
    # Lambda of OrthoReg in methods with "+orthoreg"; `form` and `precision` act there, too.
    penalty.strength = 10.0
    # "released" (norm, Gram of the smaller side) or "paper" (squared norm, Gram over columns).
    penalty.form = "released"
    # Precision of the penalty's matrix products. "default" rounds updates to bfloat16 on TPUs (sums
    # stay float32) and changes the gradient by 2e-3 of its norm; see
    # experiments/results/penalty_ViT-B32.md.
    penalty.precision = "highest"
    # Also train the text tower's embeddings and projection in "full+orthoreg" and
    # "linearized+orthoreg", as the authors' code does in whole-tower modes. Image features do not
    # use them: only weight decay and this penalty change them, but their gradient counts in the
    # clip.
    penalty.text_tensors = False

    # E || J tau ||^2 on images of the other `tasks`, one task at each step.
    penalty.taujp = ConfigDict()
    # Lambda of methods with "+taujp"; the default is the best in experiments/results/rivals.md.
    penalty.taujp.strength = 0.01
    # Images at each step, in addition to training.batch_size.
    penalty.taujp.batch_size = 16

    # The same, from Kronecker factors of the other tasks, computed before training; training then
    # sees no images of other tasks.
    penalty.tak = ConfigDict()
    # Lambda of methods with "+tak"; the default is the best in experiments/results/rivals.md.
    penalty.tak.strength = 0.1
    # Training images of each other task for its factors, chosen with a fixed seed; 0: all.
    penalty.tak.images = 256
    # Curvature of the features divided by their norm, as in TAK's code; False: as they are.
    penalty.tak.normalized = False
    # What the final projection's term is multiplied by; TAK's published configs have 0.01.
    penalty.tak.projection = 1.0

    # The same by factors of the control task's validation images, as images of no task in
    # particular: nothing is known of the other tasks. With the mode "delta" it is DELTA.
    penalty.drift = ConfigDict()
    # Lambda of methods with "+drift"; as published for DELTA, not tuned here.
    penalty.drift.strength = 500.0
    # Validation images for the factors, chosen with a fixed seed; 0: all.
    penalty.drift.images = 256
    # Curvature of the features divided by their norm; as published.
    penalty.drift.normalized = True
    # What the final projection's term is multiplied by; as published.
    penalty.drift.projection = 0.1

    # Values for one method, instead of training.learning_rate and its penalty's strength; 0.0: no
    # change. A method with several penalties uses the learning rate of its mode, and for each
    # penalty the strength of the method that has only this penalty.
    config.per_method = ConfigDict()
    for mode in MODES:
        config.per_method[mode] = ConfigDict({"learning_rate": 0.0})
        for name in PENALTIES:
            own = {"learning_rate": 0.0, "strength": 0.0}
            config.per_method[mode + PLUS + name] = ConfigDict(own)

    config.linearized = ConfigDict()
    # The mode "linearized" linearises features divided by their norm, as TAK's code does; False:
    # features before that.
    config.linearized.normalized = False

    config.lora = lora = ConfigDict()
    # Rank of the adapters of the mode "lora": dW = (alpha / rank) B A.
    lora.rank = 8
    # Scale of the adapters: dW = (alpha / rank) B A.
    lora.alpha = 8.0
    # Kernels with an adapter: "qkvo" (attention's in- and output), "qkv", "qv", "mlp" or "all".
    lora.placement = "qkvo"

    # The mode "delta"; its values are as published. Each step trains at alpha times the updates,
    # with alpha drawn from a range that opens from 1 alone to [low, high].
    config.delta = delta = ConfigDict()
    # Lower end of the range of alpha in the last step, at most 1.
    delta.low = 0.5
    # Upper end of the range of alpha in the last step, at least 1.
    delta.high = 2.0
    # The range opens by the fraction of steps done, to this power.
    delta.power = 0.5
    # Weight of the squared distance between the model's and the linearised model's outputs.
    delta.weight = 1.0

    config.training = training = ConfigDict()
    # Optimiser steps for each task, if `epochs` is 0.
    training.steps = 100
    # Passes over each task's training images; -1.0: as many as in the field's recipe
    # (`tasks/catalogue.py`), for the field's tasks only.
    training.epochs = 0.0
    # Images at each step, over all devices.
    training.batch_size = 128
    # Peak of the cosine schedule, which ends at 0.
    training.learning_rate = 1e-5
    # Linear warm-up: below 1, a fraction of the steps; from 1 up, a number of steps. During n steps
    # of warm-up, step k, counted from 1, has k / n of the peak.
    training.warmup = 0.1
    # "adamw", or "muon": Muon on the kernels of linear layers and LoRA's factors, with updates of
    # AdamW's size, and AdamW on everything else.
    training.optimizer = "adamw"
    # Decoupled weight decay, on every trained leaf.
    training.weight_decay = 0.1
    # Largest global norm of the gradient.
    training.clip_norm = 1.0
    # Smallest fraction of an image's area that a random resized crop keeps; 1.0: no augmentation.
    training.crop_scale = 0.9
    # Type of activations: "float32" or "bfloat16". Parameters and penalty stay float32.
    training.dtype = "float32"
    # Parts of a batch to process one after another, averaging their gradients; saves memory.
    training.accumulate = 1
    # Devices over which weights and optimiser state are split; 1: each device has a full copy.
    training.fsdp = 1
    # Recompute whole layers in the backward pass, not only what is cheap: less memory, more time.
    training.remat = False
    # Steps from one line of metrics.jsonl to the next.
    training.log_every = 10
    # Also write metrics.jsonl's numbers as event files for TensorBoard; needs the extra
    # [tensorboard].
    training.tensorboard = False
    # Who gets each line of metrics.jsonl: "wandb", "trackio" (extras of these names), or
    # "module:function", a function of your own that takes the line and its folder.
    training.on_metrics = ""
    # Minutes between saved states, from which an interrupted task resumes; 0.0: none by time. A
    # state is always saved when the run is asked to stop.
    training.checkpoint_minutes = 5.0
    # Steps between saved states, to have them at certain steps; 0: none by steps.
    training.checkpoint_every = 0
    # Number of newest saved states to keep; if one is damaged, the one before it is used.
    training.keep_checkpoints = 2

    config.evaluation = evaluation = ConfigDict()
    # Images in one call of the model, over all devices; changes speed and memory only.
    evaluation.batch_size = 256
    # Keep all validation and test images on the device if they are not larger than this together;
    # otherwise they stay in the host's memory and are sent batch by batch.
    evaluation.device_megabytes = 2000
    # How to search for the alphas of addition and negation, on validation images: "refined" tries
    # `relative_lengths`, then continues between the best and its neighbours; "grid" tries `alphas`.
    evaluation.alpha_search = "refined"
    # First values of ||alpha tau|| / ||theta_0||, increasing from 0. All methods use the same: some
    # have vectors ten times as long as others, and their best alpha is a tenth.
    evaluation.relative_lengths = (0.0, *(2.0**power for power in range(-8, 2)))
    # Rounds of "refined" after that; each tries two alphas for addition, and one for each share of
    # negation.
    evaluation.refinements = 3
    # Rounds of coordinate search for one alpha per task vector of the sum, with four values a task
    # in each round, starting from the best common alpha; 0: not measured.
    evaluation.per_task_rounds = 1
    # Also measure addition and negation with the other search, for a separate table.
    evaluation.other_search = False
    # Grid of alphas for "grid", increasing from 0.
    evaluation.alphas = (
        *(0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7),
        *(0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0),
    )
    # Shares of the zero-shot control accuracy that negation must preserve.
    evaluation.control_shares = (0.95, 0.9, 0.8)
    # Images to use from each task's validation split, chosen with a fixed seed; 0: all.
    evaluation.max_val_images = 0
    # Images to use from each task's test split, chosen with a fixed seed; 0: all.
    evaluation.max_test_images = 0
    # Task analogies "a:b:c:d" of four of `tasks` (a is to b as c is to d): accuracy on d of
    # tau_c + (tau_b - tau_a), which saw no image of d.
    evaluation.analogies = ()
    # Tasks whose disentanglement error is measured, pair by pair; empty: none.
    evaluation.disentanglement_tasks = ()
    # Values of both alphas at which the disentanglement error is measured.
    evaluation.disentanglement_alphas = (
        *(-3.0, -2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
    )
    # Test images of each task for the disentanglement error; 0: all.
    evaluation.max_disentanglement_images = 256
    # Test images of each task for measuring the sensitivity to each feature and the products J tau;
    # 0: not measured.
    evaluation.feature_images = 0
    return cast(Options, config.lock())


def split_method(method: str) -> tuple[str, tuple[str, ...]]:
    """Splits a method into its mode and its penalties.

    Examples:
      >>> split_method("linearized+orthoreg+tak")
      ('linearized', ('orthoreg', 'tak'))
    """
    mode, *penalties = method.split(PLUS)
    return mode, tuple(penalties)


def flatten_config(config: ConfigDict) -> dict[str, Any]:
    """Options by their dotted names."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= {f"{key}.{name}": item for name, item in flatten_config(value).items()}
        else:
            flat[key] = value
    return flat
