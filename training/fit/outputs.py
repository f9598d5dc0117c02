"""Files that the stage train leaves for the stages after it."""

from pathlib import Path

WEIGHTS_FILE = Path("models/best_model.pth")  # state dict
HISTORY_FILE = Path("models/history.csv")  # one row an epoch
SUMMARY_FILE = Path("models/training.json")
