"""The BentoML side of the registry: model folders under immutable tags in the model store.

BENTOML_HOME says where the store is. A model appears in it whole or not at all.

    python -m training.registry.bento_store      whether it can be used: `bentoml serve` would end in a traceback
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from training.common.command import run_command
from training.common.errors import ExpectedError
from training.common.files import write_text
from training.model.folder import BENTO_FILE, SUMS_FILE, ModelFolder, ModelFolderError

PREFIX = 16  # hex digits of the model's hash in its tag
TAG = re.compile(r"[a-z0-9][a-z0-9._-]*:[0-9a-f]{16}(-[0-9a-f]{8})?")
RUNS = "mlflow_runs"  # of the metadata
ASIDE = "making-model-"
STALE_S = 3600
ELSEWHERE = "name a folder for it in BENTOML_HOME"


class StoreError(ExpectedError):
    """The store cannot be written; the message says where another one may be."""


def tag_of(name: str, sha256: str) -> str:
    """The tag of the model with this hash of model.onnx: the same model, the same tag, on every machine."""
    return f"{name}:{sha256[:PREFIX]}"


def tag_for(name: str, folder: ModelFolder, run_id: str) -> str:
    """The tag under which the run `run_id` stores `folder`: `tag_of`, unless a run of another project has put the same
    model there with another card. Then the start of the run's id is added, and both live side by side."""
    tag = tag_of(name, folder.sha256)
    return f"{tag}-{run_id[:8]}" if is_of_another(tag, folder.path, run_id) else tag


def is_of_another(tag: str, folder: Path, run_id: str) -> bool:
    """Whether `tag` holds other files than `folder`, put there by another run than `run_id`."""
    there = path_of(tag)
    if not (there / BENTO_FILE).is_file() or run_id in runs_of(tag):
        return False
    sums = there / SUMS_FILE
    return not sums.is_file() or sums.read_bytes() != (folder / SUMS_FILE).read_bytes()


def store_path() -> Path:
    """The folder of the model store; found without importing BentoML. StoreError for a user without a home."""
    home = os.environ.get("BENTOML_HOME")
    try:
        return (Path(home) if home else Path.home() / "bentoml") / "models"
    except RuntimeError:
        raise StoreError(f"this user has no home folder, so {ELSEWHERE}") from None


def check() -> None:
    """StoreError unless files can be written in the store."""
    path = store_path()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise StoreError(f"the BentoML store {path} cannot be written ({error.strerror}): {ELSEWHERE}") from None


def path_of(tag: str) -> Path:
    """Where the store keeps the model `tag`; ModelFolderError for a tag that could name another place."""
    if not TAG.fullmatch(tag):
        raise ModelFolderError(f"{tag!r} is not a tag of one of our Bento models")
    name, _, version = tag.partition(":")
    return store_path() / name / version


def find(tag: str) -> ModelFolder | None:
    """The model folder under `tag`, or None; ModelFolderError when it is there but incomplete or changed."""
    path = path_of(tag)
    if not path.is_dir():
        return None
    if not (path / BENTO_FILE).is_file():
        raise ModelFolderError(f"{path / BENTO_FILE} is missing: this is not a complete BentoML model")
    return ModelFolder.open(path)


def is_whole(tag: str) -> bool:
    """Whether the store holds `tag` complete and unchanged."""
    try:
        return find(tag) is not None
    except ModelFolderError:
        return False


def metadata(tag: str) -> dict[str, Any]:
    """The metadata recorded with the model `tag`."""
    return _info(tag, "metadata")


def runs_of(tag: str) -> dict[str, str]:
    """Whose the model `tag` is: id of the run in MLflow -> version, one for each registry that has these files."""
    found = metadata(tag)
    own = {found["mlflow_run_id"]: found["mlflow_version"]} if "mlflow_run_id" in found else {}
    return dict(found.get(RUNS, own))


def labels(tag: str) -> dict[str, str]:
    """The labels of the model `tag`."""
    return _info(tag, "labels")


def _info(tag: str, key: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((path_of(tag) / BENTO_FILE).read_text())[key]
    return found


def put(tag: str, folder: Path, names: dict[str, str], values: dict[str, Any]) -> None:
    """Store the files of `folder` under `tag`, with `names` as labels and `values` as metadata; replaces what is there.

    The runs that have the same files there stay recorded beside the one in `values`.

    BentoML's own create() copies file by file under the final name; here the model is made aside and moved in at once.
    """
    check()  # before BentoML is imported, which makes its folders
    import bentoml
    from bentoml._internal.models import ModelStore

    target = path_of(tag)
    target.parent.mkdir(parents=True, exist_ok=True)
    if RUNS in values and (target / BENTO_FILE).is_file() and not is_of_another(tag, folder, ""):
        values = values | {RUNS: runs_of(tag) | values[RUNS]}
    _sweep()
    with tempfile.TemporaryDirectory(dir=store_path().parent, prefix=ASIDE) as aside:
        made = Path(aside) / target.parent.name / target.name
        with bentoml.models.create(tag, labels=names, metadata=values, _model_store=ModelStore(aside)) as model:
            shutil.copytree(folder, model.path, dirs_exist_ok=True)
        if target.exists():
            target.rename(Path(aside) / "former")
        made.rename(target)
    write_text(target.parent / "latest", target.name)


def _sweep() -> None:
    """Remove what a killed `put` left aside."""
    for left in store_path().parent.glob(ASIDE + "*"):
        if time.time() - left.stat().st_mtime > STALE_S:
            shutil.rmtree(left, ignore_errors=True)


def release(tag: str, run_id: str) -> None:
    """Remove the model `tag`, or only the record of `run_id` where other projects have it too."""
    if not (path_of(tag) / BENTO_FILE).is_file():
        return delete(tag)
    others = {run: version for run, version in runs_of(tag).items() if run != run_id}
    if not others:
        return delete(tag)
    path = path_of(tag) / BENTO_FILE
    info = yaml.safe_load(path.read_text())
    info["metadata"] |= {RUNS: others}
    return write_text(path, yaml.safe_dump(info, sort_keys=False))


def delete(tag: str) -> None:
    """Remove the model `tag` if it is there."""
    from bentoml._internal.models import ModelStore

    if path_of(tag).is_dir():
        ModelStore(store_path()).delete(tag)


def bentos() -> dict[str, list[str]]:
    """Model tag -> tags of the Bentos in the store that were built from it."""
    from bentoml._internal.bento import BentoStore

    found: dict[str, list[str]] = {}
    folder = store_path().parent / "bentos"
    for bento in BentoStore(folder).list() if folder.is_dir() else ():
        for model in bento.info.all_models:
            found.setdefault(str(model.tag), []).append(str(bento.tag))
    return found


if __name__ == "__main__":
    run_command(check)
