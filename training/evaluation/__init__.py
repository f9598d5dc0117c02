"""Metrics, calibration, novelty, behaviour, plots and quantisation of a trained model."""
