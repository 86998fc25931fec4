"""Fine-tuning of the attention projections only."""

from __future__ import annotations

from .mode import Mode, only

PATHS = ("*attn/in_proj/kernel", "*attn/out_proj/kernel")


def attention() -> Mode:
    """Trains the weights, not the biases, of attention's input and output projections.

    Reference: ATT-FT, "Fine-Tuning Attention Modules Only: Enhancing Weight
    Disentanglement in Task Arithmetic", ICLR 2025 (arXiv 2407.07089).
    """
    return only(PATHS, "ATT-FT")
