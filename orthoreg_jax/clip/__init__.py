"""CLIP in Flax: modules, presets, weights in and out, preprocessing, zero-shot heads."""

import os

# When imported, transformers advises to install torch; nothing here uses a torch model.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
