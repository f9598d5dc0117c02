"""python -m training.serving.check FOLDER [SHA256]: whether a model folder is whole and answers as at evaluation."""

from __future__ import annotations

import sys
from pathlib import Path

from training.model.classifier import Classifier
from training.model.folder import ModelFolder, ModelFolderError
from training.model.signing import verify_if_configured


def check(path: Path, model_sha256: str) -> None:
    """Raise ModelFolderError or SigningError naming what is wrong; an empty `model_sha256` accepts any model."""
    if not path.is_dir():
        raise ModelFolderError(f"{path} is not a folder: MODEL_PATH must name a model folder as export writes it")
    folder = ModelFolder.open(path)
    verify_if_configured(path)
    if model_sha256 and folder.sha256 != model_sha256:
        raise ModelFolderError(f"{path} holds model {folder.sha256[:16]}, the pin names {model_sha256[:16]}")
    Classifier(folder).self_check()


if __name__ == "__main__":
    try:
        check(Path(sys.argv[1]), sys.argv[2])
    except (ValueError, KeyError, RuntimeError) as error:
        sys.exit(f"the model cannot be served: {error}")
