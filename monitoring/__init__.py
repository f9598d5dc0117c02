"""Watching the service: what it wrote down, what people said of it, whether the world still looks as in training."""
