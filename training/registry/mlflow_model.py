"""The registered model as MLflow loads it: picture bytes in, label and probabilities out. This file is it: no pickle.

    model = mlflow.pyfunc.load_model("models:/cats-vs-dogs@champion")
    model.predict(pandas.DataFrame({"image": [Path("cat.jpg").read_bytes()]}))

A picture that is none raises PictureError, or, with params={"skip_refused": True}, gets no answer: label None and NaN.
For batch jobs and notebooks, and for Spark (training/spark.py). The service reads the same model folder from the
BentoML store, without MLflow.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

from training.model.classifier import Classifier
from training.model.columns import ANSWER, of_classes
from training.model.folder import ModelFolder
from training.model.picture.header import PictureError

BATCH = 32


class PictureClassifier(PythonModel):
    """A column `image` of picture files as bytes -> columns `label` and one probability for each class."""

    def load_context(self, context: PythonModelContext) -> None:
        """Verify the checksums of the model folder and open it."""
        self.classifier = Classifier(ModelFolder.open(Path(context.artifacts["model"])))

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow demands this name
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """One row for each picture, in order."""
        classes = list(self.classifier.folder.classes)
        pictures = list(model_input["image"])
        answer = self._those_accepted if params and params["skip_refused"] else self.classifier.predict_bytes
        starts = range(0, len(pictures), BATCH)
        answers = [answer(pictures[start : start + BATCH]) for start in starts]
        empty = np.empty((0, len(classes)), dtype=np.float32)
        frame = pd.DataFrame(np.concatenate([empty, *answers]), columns=of_classes(classes, ANSWER), dtype=float)
        best = frame.fillna(0.0).to_numpy().argmax(axis=1)
        labels = pd.Series([classes[index] for index in best], dtype=object)
        frame.insert(0, "label", labels.where(frame.iloc[:, 0].notna(), None))
        return frame

    def _those_accepted(self, pictures: Sequence[bytes]) -> NDArray[np.float32]:
        """Probabilities float32 [N, classes]; NaN for a picture that is refused."""
        found = np.full((len(pictures), len(self.classifier.folder.classes)), np.nan, dtype=np.float32)
        for number, picture in enumerate(pictures):
            with contextlib.suppress(PictureError):
                found[number] = self.classifier.predict_bytes([picture])[0]
        return found


mlflow.models.set_model(PictureClassifier())
