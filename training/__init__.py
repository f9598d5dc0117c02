"""From prepared pictures to a registered, promoted model; see training/README.md."""

import os

# ONNX Runtime reports its use to its makers otherwise, and warns on stderr where it cannot keep an id for that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
