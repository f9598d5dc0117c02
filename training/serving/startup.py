"""Which model is served, and the proof beforehand that it is whole and answers as it did at evaluation."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml
from bentoml.exceptions import BentoMLException

from training.model import judged, tracking
from training.model import pin as pin_file
from training.model.folder import ModelFolder
from training.model.pin import PIN_FILE, PROMOTION_FILE, Champion, ChampionError
from training.params import ParamsError

ROOT = Path(__file__).parent.parent.parent
IN_A_BENTO = (ROOT.parent / "bento.yaml").is_file()
CHECK_S = 60


@contextlib.contextmanager
def refusal_in_one_line() -> Iterator[None]:
    """What is wrong with the setup becomes the exception that `bentoml serve` tells in one line, with exit code 1."""
    try:
        yield
    except (ChampionError, ParamsError) as error:
        raise BentoMLException(str(error)) from None


def pinned(root: Path = ROOT) -> Champion | None:
    """The pin, or None when MODEL_PATH names a model folder; ChampionError without either."""
    return None if os.environ.get("MODEL_PATH") else pin_file.read(root / PIN_FILE)


def folder_path(pin: Champion | None) -> Path:
    """Where the model folder lies: in the BentoML model store, or at MODEL_PATH."""
    if pin is None:
        return Path(os.environ["MODEL_PATH"]).absolute()
    return Path(bentoml.models.get(pin.bento_tag).path)


@functools.cache
def model_folder(pin: Champion | None) -> ModelFolder:
    """The model folder, verified once in a process."""
    return ModelFolder.open(folder_path(pin))


def promotion(pin: Champion | None, root: Path = ROOT) -> dict[str, Any] | None:
    """How the pinned model became champion: the gate's verdict, former champions; None when that is not known here."""
    return pin_file.read_promotion(pin.model_sha256, root / PROMOTION_FILE) if pin else None


def gate(pin: Champion | None, root: Path = ROOT) -> dict[str, Any] | None:
    """What /health says of the gate's judgement, which `check` has verified; None for a folder at MODEL_PATH."""
    if pin is None:
        return None
    found = judged.read(*judged.of_promotion(pin, root))
    return {"verdict": found.gate, "forced": found.forced, "judged": found.judged}


def version(pin: Champion | None, folder: ModelFolder) -> str:
    """The version of the model in MLflow; of a folder at MODEL_PATH, the start of its hash."""
    return pin.mlflow_version if pin else f"sha256:{folder.sha256[:16]}"


def labels(pin: Champion | None) -> dict[str, str]:
    """What a Bento says of its model: names in both stores, and where the gate's verdict lies in MLflow."""
    if pin is None:
        return {}
    verdict = f"runs:/{pin.run_id}/gate/verdict.json"
    return {"model": pin.bento_tag, "mlflow_version": pin.mlflow_version, "run_id": pin.run_id, "verdict": verdict}


def image_labels(pin: Champion | None) -> list[dict[str, str]]:
    """Labels for the image of the Bento that is being built, as variables with dots in their names.

    Variables are all that BentoML hands on from a service to the template of its image (Dockerfile.j2).
    """
    if pin is None or IN_A_BENTO:
        return []
    from training import image  # stays outside the Bento

    return [{"name": name, "value": value} for name, value in image.labels(pin).items()]


def check(pin: Champion | None) -> None:
    """Refuse to start or to build (BentoMLException) unless the model is whole, is the pinned one, which the gate let
    through, passes its self-check, and the registry, where it can be asked, still calls it champion. The registry is
    not asked in a Bento: what was shipped stays what it is until something else is shipped, also when a pod starts
    again.

    Called in BentoML's supervisor, before workers exist: they would only be started again and again. The check runs in
    a process of its own, so that the supervisor stays small.
    """
    command = [sys.executable, "-m", "training.serving.check", str(folder_path(pin)), *(["--pinned"] if pin else [])]
    try:
        done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=CHECK_S)
    except subprocess.TimeoutExpired:
        hint = "give the service more CPU"
        raise BentoMLException(f"the model was not checked within {CHECK_S} s: {hint}") from None
    if done.returncode:
        raise BentoMLException(_why(done))
    if pin is not None and not IN_A_BENTO:
        with refusal_in_one_line():
            tracking.check_against_registry(pin, ROOT)


def _why(ended: subprocess.CompletedProcess[str]) -> str:
    """Why the check ended badly, in one line."""
    lines = ended.stderr.strip().splitlines() or ["it said nothing"]
    if ended.returncode > 0:
        return lines[-1]
    return f"the check of the model {ending(ended.returncode)}: {lines[-1]}"


def ending(returncode: int) -> str:
    """How a process ended, in words, with the usual reason."""
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    usual: dict[int, str] = {
        signal.SIGKILL: "out of memory, as a rule: give it more",
        signal.SIGBUS: "a disk that holds a mapped file is full, as a rule: make room where BENTOML_HOME lies",
        signal.SIGSEGV: "a fault in native code",
    }
    name = signal.Signals(-returncode).name if -returncode in set(signal.Signals) else f"signal {-returncode}"
    return f"was killed by {name}" + (f" ({usual[-returncode]})" if -returncode in usual else "")
