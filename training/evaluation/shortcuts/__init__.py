"""Quicker ways to the same answers: int8, and a first look at easy pictures."""
