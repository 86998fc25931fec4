"""Pure functions on pytrees: the penalty, task vectors, geometry. Needs jax and optax only."""
