"""CLIP in Flax: modules, presets, weights in and out, preprocessing, zero-shot heads."""

import os

# Transformers advises to install torch when it is imported; nothing here uses a torch model.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
