"""The method again in plain PyTorch, written from the paper's formulas: slow and obvious.

The image tower is transformers' own. The penalty is autograd through the Gram matrices, in the
layout of the authors' code (query, key and value fused). The linearised model is torch.func.jvp,
and adapters' products are multiplied out. Schedule, clip, weight decay and the trained parameters
are the field's choices. It imports nothing from orthoreg_jax.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import safetensors.torch
import torch
from torch.func import functional_call, jvp
from transformers import CLIPVisionModelWithProjection

Tensors = dict[str, torch.Tensor]
ATTENTION = re.compile(r".*self_attn\.(q_proj|k_proj|v_proj|out_proj)\.weight")
# Trainable in the authors' image encoder, although no image feature depends on them.
TEXT = (
    "text_model.embeddings.token_embedding.weight",
    "text_model.embeddings.position_embedding.weight",
    "text_projection.weight",
)


class Reference:
    """A CLIP image tower and the four ways to fine-tune it.

    Args:
      directory: a Hugging Face CLIP directory.
      mode: "full", "linearized", "attention" or "lora".
      factors: LoRA's initial A by "LAYER/in" and "LAYER/out", shape (r, d).
      scale: alpha / r.
      attention: an implementation by transformers' name; only "eager" has forward-mode derivatives.
      text: whether to train the text tensors, too, as the authors' code does where it trains the
        whole tower.
    """

    def __init__(
        self,
        directory: str,
        mode: str,
        factors: Tensors,
        scale: float,
        attention: str = "eager",
        text: bool = False,
    ):
        model = CLIPVisionModelWithProjection.from_pretrained(
            directory, attn_implementation=attention, dtype=torch.get_default_dtype()
        )
        self.model, self.mode, self.scale = model.eval(), mode, scale
        self.base = {name: value.detach().clone() for name, value in model.named_parameters()}
        self.tower = tuple(self.base)
        if text:
            stored = safetensors.torch.load_file(f"{directory}/model.safetensors")
            self.base |= {name: stored[name].to(torch.get_default_dtype()) for name in TEXT}
        self.layers = model.config.num_hidden_layers
        if mode == "lora":
            start = {}
            for place, a in factors.items():
                outputs = 3 * a.shape[1] if place.endswith("in") else a.shape[1]
                start[f"{place}/a"] = a.clone()
                start[f"{place}/b"] = torch.zeros(outputs, a.shape[0])
        elif mode == "attention":
            start = {name: v.clone() for name, v in self.base.items() if ATTENTION.match(name)}
        else:
            start = {name: value.clone() for name, value in self.base.items()}
        self.trainable = {name: value.requires_grad_() for name, value in start.items()}

    def features(self, params: Tensors, pixels: torch.Tensor) -> torch.Tensor:
        """Features after the projection, before normalisation."""
        tower = {name: params[name] for name in self.tower}
        return functional_call(self.model, tower, (pixels,)).image_embeds

    def _block(self, layer: int, part: str) -> str:
        return f"vision_model.encoder.layers.{layer}.{part}.weight"

    def delta(self) -> Tensors:
        """The update by training, by the tower's tensor names."""
        if self.mode != "lora":
            return {name: value - self.base[name] for name, value in self.trainable.items()}
        changes = {}
        for layer in range(self.layers):
            product = {
                place: self.scale
                * self.trainable[f"{layer}/{place}/b"]
                @ self.trainable[f"{layer}/{place}/a"]
                for place in ("in", "out")
            }
            for part, rows in zip("qkv", product["in"].chunk(3), strict=True):
                changes[self._block(layer, f"self_attn.{part}_proj")] = rows
            changes[self._block(layer, "self_attn.out_proj")] = product["out"]
        return changes

    def forward(self, pixels: torch.Tensor, delta: Tensors, alpha: float = 1.0) -> torch.Tensor:
        """Features of the edited model, or of the linearised one."""
        moved = {name: alpha * change for name, change in delta.items()}
        if self.mode != "linearized":
            edited = {name: self.base[name] + change for name, change in moved.items()}
            return self.features({**self.base, **edited}, pixels)
        value, slope = jvp(lambda params: self.features(params, pixels), (self.base,), (moved,))
        return value + slope

    def outputs(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features of the model in training."""
        if self.mode in ("full", "attention"):
            return self.features({**self.base, **self.trainable}, pixels)
        return self.forward(pixels, self.delta())

    def matrices(self, delta: Tensors) -> list[torch.Tensor]:
        """The updates that the penalty sees: 2-D tensors, query, key and value fused."""
        found = []
        for layer in range(self.layers):
            qkv = [self._block(layer, f"self_attn.{part}_proj") for part in "qkv"]
            if qkv[0] in delta:
                found.append(torch.cat([delta[name] for name in qkv]))
            for part in ("self_attn.out_proj", "mlp.fc1", "mlp.fc2"):
                if self._block(layer, part) in delta:
                    found.append(delta[self._block(layer, part)])
        for name in (
            "visual_projection.weight",
            "vision_model.embeddings.position_embedding.weight",
            *TEXT,
        ):
            if name in delta:
                found.append(delta[name])
        return found

    def penalty(self, delta: Tensors) -> torch.Tensor:
        """sum_l ||G_l - I||_F, G the Gram matrix of the smaller side."""
        total = torch.zeros(())
        for matrix in self.matrices(delta):
            small = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
            gram = small.T @ small
            total = total + torch.linalg.norm(gram - torch.eye(len(gram)))
        return total


def logits(features: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    """Cosine similarities times the temperature, which is part of the head."""
    return torch.nn.functional.normalize(features, dim=-1) @ head.T


def schedule(peak: float, warmup: int, steps: int) -> Callable[[int], float]:
    """The field's schedule: warm-up steps k = 1 to n have k peak / n; then a cosine to 0."""

    def rate(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / warmup
        return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))

    return rate


def update(
    reference: Reference,
    optimizer: torch.optim.Optimizer,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    head: torch.Tensor,
    strength: float | None,
) -> tuple[float, float, float]:
    """Takes one step, clipped to a global norm of 1; a strength of None computes no penalty.

    Returns:
      Loss, penalty and gradient norm before the step.
    """
    values = list(reference.trainable.values())
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(logits(reference.outputs(pixels), head), labels)
    term = torch.zeros(()) if strength is None else reference.penalty(reference.delta())
    (loss + strength * term if strength else loss).backward()
    norm = torch.nn.utils.clip_grad_norm_(values, 1.0)
    optimizer.step()
    return loss.item(), term.item(), norm.item()


def train(
    reference: Reference,
    batches: Sequence[tuple[torch.Tensor, torch.Tensor]],
    head: torch.Tensor,
    strength: float,
    peak: float,
    warmup: int,
    steps: int,
) -> list[tuple[float, float, float]]:
    """Trains by AdamW with weight decay 0.1; returns what `update` returns, for every step."""
    values = list(reference.trainable.values())
    optimizer = torch.optim.AdamW(values, lr=peak, weight_decay=0.1)
    rate, history = schedule(peak, warmup, steps), []
    for step, (pixels, labels) in enumerate(batches):
        optimizer.param_groups[0]["lr"] = rate(step)
        history.append(update(reference, optimizer, pixels, labels, head, strength))
    return history
