"""What opens a run, edits a model and writes it: exports, merges, measures, uploads."""
