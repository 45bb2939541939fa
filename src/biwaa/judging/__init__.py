"""What predictions are worth: metrics, label-free scores, calibration, estimates, warnings."""
