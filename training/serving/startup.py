"""Which model is served, and the proof before the first request that it is whole and answers as it did at evaluation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import bentoml
from bentoml.exceptions import BentoMLException

from training import champion
from training.champion import PIN_FILE, Champion, ChampionError

ROOT = Path(__file__).parent.parent.parent
CHECK_S = 60


def pinned(root: Path = ROOT) -> Champion | None:
    """The pin, or None when MODEL_PATH names a model folder. BentoMLException (one line, exit 1) without either."""
    if os.environ.get("MODEL_PATH"):
        return None
    try:
        return champion.read(root / PIN_FILE)
    except ChampionError as error:
        raise BentoMLException(str(error)) from None


def folder_path(pin: Champion | None) -> Path:
    """Where the model folder lies: in the BentoML model store, or at MODEL_PATH."""
    if pin is None:
        return Path(os.environ["MODEL_PATH"]).absolute()
    return Path(bentoml.models.get(pin.bento_tag).path)


def check(pin: Champion | None) -> None:
    """Refuse to start (BentoMLException) unless the model is whole, is the pinned one, and passes its self-check.

    Called in BentoML's supervisor, before workers exist: they would only be started again and again. The check runs in
    a process of its own, so that the supervisor stays small.
    """
    try:
        if pin is not None:
            champion.check_against_registry(pin, ROOT)
    except ChampionError as error:
        raise BentoMLException(str(error)) from None
    command = [sys.executable, "-m", "training.serving.check", str(folder_path(pin)), pin.model_sha256 if pin else ""]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=CHECK_S)
    if done.returncode:
        raise BentoMLException(done.stderr.strip().splitlines()[-1])
