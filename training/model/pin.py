"""The pin: which model is served. The registry's alias decides; this file repeats its decision for those that serve.

`promote`, `rollback` and `pull` write models/champion.json after the alias `champion` has moved; service.py and
bentofile.yaml read it, so `bentoml serve` needs no registry and a Bento, once built, never changes its model.
Only the standard library is imported: this module travels into the Bento.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.common.errors import ExpectedError
from training.common.files import write_text

PIN_FILE = Path("models/champion.json")
PROMOTION_FILE = Path("models/promotion.json")  # how the pinned model became champion, see registry/promotion.py
DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"


class ChampionError(ExpectedError):
    """The pin cannot be used; the message names the command that mends it."""


class NoChampionError(ChampionError):
    """No model was made champion here."""


@dataclass(frozen=True)
class Champion:
    """The pinned model: its names in MLflow and in the BentoML store, and the hash of its model.onnx."""

    name: str
    bento_tag: str
    mlflow_version: str
    run_id: str
    model_sha256: str
    tracking_uri: str = DEFAULT_TRACKING_URI


def read(path: Path = PIN_FILE) -> Champion:
    """The pin; NoChampionError when there is none, ChampionError when the file is not one."""
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        raise NoChampionError(
            f"there is no champion to serve: {path} is missing. Make one with `make run`, "
            "or bring one from a remote registry: MLFLOW_TRACKING_URI=http://... python -m training.registry pull"
        ) from None
    except ValueError as error:
        raise ChampionError(f"{path} is not JSON ({error}): run `python -m training.registry pull`") from None
    names = [field.name for field in dataclasses.fields(Champion)]
    if not isinstance(values, dict) or any(not isinstance(values.get(name), str) for name in names):
        raise ChampionError(f"{path} lacks one of {', '.join(names)}: run `python -m training.registry pull`")
    return Champion(**{name: values[name] for name in names})


def write(pin: Champion, path: Path = PIN_FILE) -> None:
    """Replace the pin in one step; a reader sees the former one or this one."""
    write_text(path, json.dumps(dataclasses.asdict(pin), indent=2) + "\n")


def read_promotion(model_sha256: str, path: Path = PROMOTION_FILE) -> dict[str, Any] | None:
    """How this model became champion, as promotion.py wrote it; None when nothing is known, or only of another."""
    try:
        values = json.loads(path.read_text())
        about = values["champion"]["model_sha256"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return dict(values) if about == model_sha256 else None
