"""Opens a run, edits a model and writes it: export, merge, measure, upload."""
