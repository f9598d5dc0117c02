"""What both stores hold: the MLflow model (files and code, no pickle), and labels and metadata in the BentoML store."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.model.columns import ANSWER, of_classes
from training.model.folder import SIGNATURE_FILE, ModelFolder
from training.model.picture.header import FORMATS
from training.model.tracking import SHA256_TAG
from training.registry import bento_store
from training.registry.mlflow_store import VERDICT_PATH, Version

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

TRAINING = Path(__file__).parents[1]
SERVED_MODULES = (
    "common/errors.py",
    "common/files.py",
    "common/units.py",
    "model/classifier.py",
    "model/columns.py",
    "model/folder.py",
    "model/picture/boxes.py",
    "model/picture/colour.py",
    "model/picture/header.py",
    "model/picture/values.py",
    "model/preprocess.py",
)
# Of each package that travels in the MLflow model: loaded in a clone of the project, it hides nothing of it.
SERVED_PACKAGE = "from pkgutil import extend_path\n\n__path__ = extend_path(__path__, __name__)\n"


def save_mlflow_model(staged: Path, folder: ModelFolder, target: Path, code: Path) -> None:
    """Write the MLflow model of a staged model folder to `target`: code and files, no pickle."""
    import pandas as pd
    from mlflow.pyfunc import save_model

    example = folder.path / folder.card["self_check"][0]["file"]
    packages = ("mlflow", "numpy", "onnxruntime", "pandas", "pillow", "simplejpeg", *_heif())
    search_path = list(sys.path)
    save_model(
        target,
        python_model=str(Path(__file__).parent / "mlflow_model.py"),
        code_paths=[str(_served_package(code))],
        artifacts={"model": str(staged)},
        signature=signature(folder.classes),
        input_example=pd.DataFrame({"image": [example.read_bytes()]}),
        pip_requirements=[f"{name}=={metadata.version(name)}" for name in packages] + _quick_resizer(),
    )
    sys.path[:] = search_path  # MLflow loaded the model once to try the example, and left its code in front


def _heif() -> list[str]:
    """The package that reads HEIC, if it is installed here."""
    return ["pillow-heif"] if "HEIF" in FORMATS else []


def _quick_resizer() -> list[str]:
    """The requirement of the quick resizer, if it is installed here: only where it has wheels."""
    try:
        version = metadata.version("cykooz-resizer")
    except metadata.PackageNotFoundError:
        return []
    return [f"cykooz-resizer=={version}; sys_platform != 'linux' or platform_machine != 'aarch64'"]


def _served_package(code: Path) -> Path:
    """A package `training` of what prediction needs, under `code`."""
    package = code / "training"
    package.mkdir(parents=True)
    for folder in (".", *sorted({str(Path(name).parent) for name in SERVED_MODULES})):
        (package / folder).mkdir(exist_ok=True)
        (package / folder / "__init__.py").write_text(SERVED_PACKAGE)
    for name in SERVED_MODULES:
        shutil.copyfile(TRAINING / name, package / name)
    return package


def signature(classes: Sequence[str]) -> ModelSignature:
    """Picture bytes in; label and one probability for each class out; `skip_refused` as mlflow_model.py says."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    answers: list[Any] = [ColSpec(DataType.string, "label")]
    answers += [ColSpec(DataType.double, name) for name in of_classes(classes, ANSWER)]
    options = ParamSchema([ParamSpec("skip_refused", DataType.boolean, False)])
    return ModelSignature(Schema([ColSpec(DataType.binary, "image")]), Schema(answers), options)


def bento_metadata(version: Version) -> dict[str, Any]:
    """What the BentoML store records beside the files; the same files may be those of runs in other registries too."""
    return {
        "mlflow_run_id": version.run_id,
        "mlflow_version": version.number,
        bento_store.RUNS: {version.run_id: version.number},
        **{key: version.tags[key] for key in ("data_hash", "git_commit", SHA256_TAG, "params_hash")},
    }


def bento_labels(card: Mapping[str, Any], version: Version) -> dict[str, str]:
    """What `bentoml models list` shows; `verdict` is where the gate files its verdict on this model."""
    return {
        "architecture": str(card["architecture"]),
        "classes": "-".join(card["classes"])[:200],
        "verdict": f"runs:/{version.run_id}/{VERDICT_PATH}",
    }


def is_recorded(version: Version) -> bool:
    """Whether what the BentoML store records with the model of `version` names this version, among others maybe."""
    tag, expected = version.bento_tag, bento_metadata(version)
    found = bento_store.metadata(tag)
    same = all(found.get(key) == expected[key] for key in ("data_hash", "git_commit", SHA256_TAG, "params_hash"))
    return same and bento_store.runs_of(tag).get(version.run_id) == version.number


def is_complete(version: Version, signing_key: Path | None) -> bool:
    """Whether the BentoML store holds the model of `version` as it should be."""
    tag = version.bento_tag
    if not bento_store.is_whole(tag) or not is_recorded(version):
        return False
    return signing_key is None or (bento_store.path_of(tag) / SIGNATURE_FILE).is_file()
