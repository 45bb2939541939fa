"""Heads on frozen features by deterministic solvers: no steps, no draws. float32, where the features are."""
