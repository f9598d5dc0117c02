"""python -m training.serving.check FOLDER [--pinned]: whether a model folder is whole and answers as at evaluation.

With --pinned it must also be the model that models/champion.json names, and the gate must have let it through.
"""

from __future__ import annotations

import sys
from pathlib import Path

from training.model import judged
from training.model import pin as pin_file
from training.model.classifier import Classifier
from training.model.folder import ModelFolder, ModelFolderError
from training.model.pin import Champion
from training.model.signing import verify_if_configured


def check(path: Path, pin: Champion | None) -> None:
    """Raise ModelFolderError, SigningError or ChampionError naming what is wrong; without a pin any model will do."""
    if not path.is_dir():
        raise ModelFolderError(f"{path} is not a folder: MODEL_PATH must name a model folder as export writes it")
    folder = ModelFolder.open(path)
    verify_if_configured(path)
    if pin is not None and folder.sha256 != pin.model_sha256:
        raise ModelFolderError(f"{path} holds model {folder.sha256[:16]}, the pin names {pin.model_sha256[:16]}")
    if pin is not None:
        judged.demand_of_pin(pin)
    Classifier(folder).self_check()


if __name__ == "__main__":
    try:
        check(Path(sys.argv[1]), pin_file.read() if sys.argv[2:] == ["--pinned"] else None)
    except (ValueError, KeyError, RuntimeError) as error:
        sys.exit(f"the model cannot be served: {error}")
