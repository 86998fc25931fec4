"""CLIP in Flax: modules, presets, weights in and out, preprocessing, zero-shot heads."""
