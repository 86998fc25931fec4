"""Accuracies of edited models (single tasks, addition, negation), and geometry of task vectors."""
