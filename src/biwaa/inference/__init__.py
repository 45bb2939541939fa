"""Predictions of a trained model, for tables, for other programs, and as heat maps."""
