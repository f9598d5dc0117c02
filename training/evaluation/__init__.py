"""Metrics, calibration, novelty, behaviour, plots and shortcuts of a trained model."""
