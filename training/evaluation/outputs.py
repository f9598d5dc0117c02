"""Files that the stage evaluate leaves for the stages after it."""

from pathlib import Path

BACKBONE_FILE = Path("models/backbone.onnx")
CALIBRATION_FILE = Path("models/calibration.npz")
LOOK_FILE = Path("models/look.npz")  # the first look at easy pictures, if there is one
METRICS_FILE = Path("model_performance.json")
PLOTS_FOLDER = Path("models/plots")
PREDICTIONS_FILE = Path("models/predictions.csv")  # of the test split
