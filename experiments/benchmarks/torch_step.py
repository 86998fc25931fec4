"""The same train step in plain PyTorch.

`torch_step` runs experiments/parity/reference.py on random weights, with all its methods, on the
CPU. `torch_training` is full fine-tuning as a PyTorch program would do it on a GPU.
"""

from __future__ import annotations

import functools
import math
import pathlib
import sys
import tempfile
from collections.abc import Callable

import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from orthoreg_jax.clip.config import ClipConfig
from orthoreg_jax.config import ORTHOREG, default_config

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "parity"))

from reference import Reference, update  # noqa: E402


def torch_step(config: ClipConfig, method: str, batch: int, classes: int) -> Callable[[], None]:
    """A function that takes one step of a method."""
    sizes, mode, lora = config.visual, method.removesuffix(ORTHOREG), default_config().lora
    reference = Reference(
        write_model(config),
        mode,
        {f"{layer}/{place}": torch.empty(lora.rank, sizes.width).uniform_(-1, 1)
         / math.sqrt(sizes.width) for layer in range(sizes.layers) for place in ("in", "out")},
        lora.alpha / lora.rank,
        "eager" if mode == "linearized" else "sdpa",
    )  # fmt: skip
    optimizer = torch.optim.AdamW(reference.trainable.values(), lr=1e-5, weight_decay=0.1)
    pixels = torch.randn(batch, 3, sizes.image_size, sizes.image_size)
    labels = torch.randint(classes, (batch,))
    head = torch.randn(classes, config.projection)
    strength = 10.0 if method.endswith(ORTHOREG) else None
    return lambda: update(reference, optimizer, pixels, labels, head, strength) and None


@functools.cache
def write_model(config: ClipConfig) -> str:
    """A Hugging Face directory of random weights, deleted when this process ends."""
    _folders.append(tempfile.TemporaryDirectory())
    CLIPVisionModelWithProjection(vision_config(config)).save_pretrained(_folders[-1].name)
    return _folders[-1].name


def vision_config(config: ClipConfig) -> CLIPVisionConfig:
    """The same sizes as a transformers config."""
    sizes = config.visual
    return CLIPVisionConfig(
        hidden_size=sizes.width,
        intermediate_size=sizes.mlp_width,
        projection_dim=config.projection,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        hidden_act=sizes.activation,
        layer_norm_eps=sizes.eps,
    )


def torch_training(
    config: ClipConfig,
    batch: int,
    classes: int,
    *,
    penalised: bool,
    compiled: bool,
    precision: str,
    dtype: str,
    accumulate: int,
    device: str,
) -> Callable[[], torch.Tensor]:
    """A function that takes one step of full fine-tuning, and returns without waiting for it.

    It uses fused AdamW, clipping to a global norm of 1, and PyTorch's own attention. The penalty is
    autograd through the Gram matrix of each 2-D update, with query, key and value fused, as in the
    authors' code; it is always float32.

    Args:
      config: the model's sizes; its weights are random.
      batch: number of images in a step.
      classes: number of classes of the head.
      penalised: whether to add the penalty, with strength 10.
      compiled: whether to use `torch.compile` for loss and penalty; the optimiser is fused anyway.
      precision: precision of float32 matrix products: "highest", or "high" (TF32).
      dtype: "float32", or "bfloat16" by autocast.
      accumulate: number of parts of a batch, computed one after another.
      device: PyTorch's name of the device.
    """
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"
    sizes, kind = config.visual, torch.device(device).type
    model = CLIPVisionModelWithProjection._from_config(
        vision_config(config), attn_implementation="sdpa"
    ).to(device)
    weights = list(model.parameters())
    matrices = _matrices(model) if penalised else []
    anchors = [[weight.detach().clone() for weight in matrix] for matrix in matrices]
    optimizer = torch.optim.AdamW(weights, lr=1e-5, weight_decay=0.1, fused=kind == "cuda")
    shape = (accumulate, batch // accumulate, 3, sizes.image_size, sizes.image_size)
    images = torch.randint(256, shape, dtype=torch.uint8, device=device)
    labels = torch.randint(classes, shape[:2], device=device)
    head = torch.randn(classes, config.projection, device=device)

    def loss(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(kind, torch.bfloat16, enabled=dtype == "bfloat16"):
            features = model(images.float() / 255).image_embeds
        unit = torch.nn.functional.normalize(features.float(), dim=-1)
        return torch.nn.functional.cross_entropy(unit @ head.T, labels)

    def penalty() -> torch.Tensor:
        total = torch.zeros((), device=device)
        for matrix, anchor in zip(matrices, anchors, strict=True):
            update = torch.cat([new - old for new, old in zip(matrix, anchor, strict=True)])
            tall = update if update.shape[0] >= update.shape[1] else update.T
            total = total + torch.norm(tall.T @ tall - torch.eye(tall.shape[1], device=device))
        return total

    if compiled:
        loss, penalty = torch.compile(loss), torch.compile(penalty)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        for part in zip(images, labels, strict=True):
            value = loss(*part)
            (value / accumulate).backward()
        if penalised:
            (10.0 * penalty()).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        return value

    return step


def _matrices(model: torch.nn.Module) -> list[list[torch.Tensor]]:
    """The weights that the penalty sees, grouped by matrix."""
    tower, found = model.vision_model, []
    for layer in tower.encoder.layers:
        attention = layer.self_attn
        found.append([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
        found += [[one.weight] for one in (attention.out_proj, layer.mlp.fc1, layer.mlp.fc2)]
    found += [[model.visual_projection.weight], [tower.embeddings.position_embedding.weight]]
    return found


_folders: list[tempfile.TemporaryDirectory[str]] = []
