"""The model folder that is served here, and its version as the request log and the metrics name it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.champion import Champion
from training.inference import ModelFolder
from training.serving import startup


@dataclass(frozen=True)
class Served:
    """`version` is the one in MLflow, or `sha256:` and 16 digits of a model that has none here."""

    folder: ModelFolder
    name: str
    version: str


def find(path: Path | None = None) -> Served:
    """The model folder at `path`, or else what the service serves: MODEL_PATH or the pinned champion.

    Raises ModelFolderError for a folder that is not whole, ChampionError without a champion.
    """
    if path is not None:
        return _unregistered(ModelFolder.open(path))
    pin = startup.pinned()
    if pin is None:
        return _unregistered(ModelFolder.open(startup.folder_path(None)))
    return Served(ModelFolder.open(_champion_path(pin)), pin.name, pin.mlflow_version)


def _champion_path(pin: Champion) -> Path:
    if startup.IN_A_BENTO:  # its models lie beside the code, in no store
        return startup.ROOT.parent / "models" / pin.bento_tag.replace(":", "/")
    return startup.folder_path(pin)


def _unregistered(folder: ModelFolder) -> Served:
    return Served(folder, folder.card["name"], f"sha256:{folder.sha256[:16]}")
