"""The registered model as MLflow loads it: picture bytes in, label and probabilities out. This file is it: no pickle.

    model = mlflow.pyfunc.load_model("models:/cats-vs-dogs@champion")
    model.predict(pandas.DataFrame({"image": [Path("cat.jpg").read_bytes()]}))

For batch jobs and notebooks; the service reads the same model folder from the BentoML store, without MLflow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from training.inference import Classifier, ModelFolder

BATCH = 32


class PictureClassifier(PythonModel):
    """A column `image` of picture files as bytes -> columns `label` and one probability for each class."""

    def load_context(self, context: PythonModelContext) -> None:
        """Verify the checksums of the model folder and open it."""
        self.classifier = Classifier(ModelFolder.open(Path(context.artifacts["model"])))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row for each picture, in order; PictureError for the first that is not one."""
        classes = list(self.classifier.folder.classes)
        pictures = list(model_input["image"])
        starts = range(0, len(pictures), BATCH)
        answers = [self.classifier.predict_bytes(pictures[start : start + BATCH]) for start in starts]
        empty = np.empty((0, len(classes)), dtype=np.float32)
        frame = pd.DataFrame(np.concatenate([empty, *answers]), columns=classes, dtype=float)
        frame.insert(0, "label", [classes[best] for best in frame.to_numpy().argmax(axis=1)])
        return frame


mlflow.models.set_model(PictureClassifier())
