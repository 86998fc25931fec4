"""Accuracy of edited models: single tasks, addition, negation, and the geometry of vectors."""
