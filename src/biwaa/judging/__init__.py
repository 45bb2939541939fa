"""How good predictions are: metrics, label-free scores, calibration, estimates, warnings."""
