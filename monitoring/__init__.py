"""Watching the service: what it wrote down, what people said of it, and whether the world still looks as in training."""
