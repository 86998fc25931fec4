"""Penalties on weight updates: pure functions of pytrees, one file each."""
