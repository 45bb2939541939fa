"""What a trained model is used for: predictions, accuracy, tables, export to other programs, heat maps."""
