"""Numbers in the paper, for comparison with our measurements.

"Understanding and Enforcing Weight Disentanglement in Task Arithmetic", CVPR 2026
(arXiv 2604.17078), tables 1 and 2: eight tasks, CLIP ViT-B/32, B/16 and L/14, per cent.
"""

MODELS = ("B/32", "B/16", "L/14")
# By method: (Abs, Norm) for each model; None: misprinted in the paper.
ADDITION: dict[str, tuple[tuple[float, float | None], ...]] = {
    "zero-shot": ((47.74, None), (54.22, None), (64.54, None)),
    "full": ((70.32, 77.56), (75.39, None), (84.07, 89.19)),
    "full+orthoreg": ((73.41, 93.93), (77.68, 93.62), (88.23, 100.08)),
    "linearized": ((74.68, 85.27), (78.97, 87.48), (86.19, 93.14)),
    "linearized+orthoreg": ((76.35, 91.81), (79.85, 88.02), (87.52, 96.44)),
    "attention": ((78.07, 86.99), (80.71, 87.64), (87.81, 93.59)),
    "attention+orthoreg": ((80.87, 99.76), (83.37, 98.77), (90.41, 100.05)),
    "lora": ((73.84, 84.29), (75.51, 83.17), (87.02, 93.33)),
    "lora+orthoreg": ((76.00, 86.10), (79.67, 87.70), (89.16, 95.50)),
}
# Negation at 95 % of control accuracy: (target, control) for each model. The zero-shot control of
# B/32 is the paper's; others report about 63.4.
NEGATION: dict[str, tuple[tuple[float, float], ...]] = {
    "zero-shot": ((47.74, 66.70), (54.22, 68.34), (64.54, 77.44)),
    "full": ((25.05, 63.91), (20.29, 66.38), (18.09, 74.39)),
    "full+orthoreg": ((18.55, 64.07), (19.51, 67.42), (16.33, 75.39)),
    "linearized": ((11.47, 63.99), (9.33, 66.82), (8.36, 74.39)),
    "linearized+orthoreg": ((11.39, 64.07), (7.49, 66.73), (8.36, 74.87)),
    "attention": ((19.39, 64.90), (19.20, 67.75), (24.85, 76.42)),
    "attention+orthoreg": ((15.67, 64.16), (14.78, 66.81), (14.67, 75.40)),
    "lora": ((20.10, 64.51), (19.44, 67.28), (22.17, 75.81)),
    "lora+orthoreg": ((19.19, 64.43), (17.25, 67.08), (13.94, 74.45)),
}
# LoRA's placement (table 6), B/16: Abs without and with the penalty.
PLACEMENT = {
    "all": (75.18, 78.07),
    "qkvo": (76.31, 80.48),
    "qkv": (74.69, 78.10),
    "qv": (75.15, 77.03),
    "mlp": (71.24, 72.05),
}
