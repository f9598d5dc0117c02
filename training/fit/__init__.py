"""Architectures, views, features, training loop and devices: PyTorch lives here."""
