"""The model folder that is served here, and its version as the request log and the metrics name it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.model.folder import ModelFolder, ModelFolderError
from training.model.pin import Champion, ChampionError
from training.serving import startup


@dataclass(frozen=True)
class Served:
    """`version` is the one in MLflow, or `sha256:` and 16 digits of a model that has none here; `in_service`: whether
    it is what the service here serves."""

    folder: ModelFolder
    name: str
    version: str
    in_service: bool


def find(path: Path | None = None) -> Served:
    """The model folder at `path`, or else what the service serves: MODEL_PATH or the pinned champion.

    A copy of the model that is served is known as that, with its version. Raises ModelFolderError for a folder that is
    not whole, ChampionError without a champion.
    """
    if path is not None:
        return _known(ModelFolder.open(path))
    pin = startup.pinned()
    if pin is None:
        return _unregistered(ModelFolder.open(startup.folder_path(None)), in_service=True)
    return Served(ModelFolder.open(_champion_path(pin)), pin.name, pin.mlflow_version, in_service=True)


def _known(folder: ModelFolder) -> Served:
    try:
        pin = startup.pinned()
        served = pin.model_sha256 if pin else ModelFolder.open(startup.folder_path(None)).sha256
    except (ChampionError, ModelFolderError):  # nothing is served here
        return _unregistered(folder, in_service=False)
    if pin is None or served != folder.sha256:
        return _unregistered(folder, in_service=served == folder.sha256)
    return Served(folder, pin.name, pin.mlflow_version, in_service=True)


def _champion_path(pin: Champion) -> Path:
    if startup.IN_A_BENTO:  # its models lie beside the code, in no store
        return startup.ROOT.parent / "models" / pin.bento_tag.replace(":", "/")
    return startup.folder_path(pin)


def _unregistered(folder: ModelFolder, in_service: bool) -> Served:
    return Served(folder, folder.card["name"], f"sha256:{folder.sha256[:16]}", in_service)
