"""Experiments: checked as a whole, then run stage by stage into a folder."""
