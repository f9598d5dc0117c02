"""Small real parts for tests: pictures told apart by their colour, a linear ONNX model that does so, a whole project.

Nothing here stands in for a part of the system: the model folder is one as `export` writes it, only tiny.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from data.manifest import Manifest
from training.evaluation import mistakes
from training.evaluation.mistakes import Mistake
from training.model.classifier import Classifier
from training.model.folder import CARD_FILE, MODEL_FILE, ModelFolder, write_sums
from training.model.preprocess import QUICK, load
from training.model.properties import measure
from training.model.reference import Reference

CLASSES = ("cat", "dog")
SIZE = 32
REFERENCE_PICTURES = 60
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCE = Path(__file__).parent.parent


def tiny_picture(label: int, seed: int, side: int = 40, noise: float = 0.05) -> bytes:
    """A PNG whose mean colour leans to red (label 0), green (1), blue (2), cyan (3); `noise` misleads some."""
    random = np.random.default_rng([label, seed])
    colour = 0.5 + 0.1 * _direction(label) + random.normal(0, noise, 3)
    pixels = np.clip(colour + random.normal(0, 0.1, (side, side, 3)), 0, 1)
    file = io.BytesIO()
    Image.fromarray((pixels * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _direction(label: int) -> NDArray[np.float64]:
    unit = np.zeros(3)
    unit[label % 3] = 1.0
    return unit if label < 3 else -unit


def tiny_data(root: Path, classes: Sequence[str] = CLASSES, per_class: int = 100) -> Path:
    """data/processed and data/manifest.csv under `root`: half the pictures are test, a tenth validation."""
    rows = []
    for label, name in enumerate(classes):
        folder = root / "data/processed" / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            data = tiny_picture(label, number)
            digest = hashlib.sha256(data).hexdigest()
            (folder / f"{digest[:16]}.png").write_bytes(data)
            split = "test" if number % 2 else "validation" if number % 10 == 0 else "train"
            path = f"{name}/{digest[:16]}.png"
            rows.append([path, name, split, digest, 40, 40, f"{name}/{number}.png"])
    manifest = root / "data/manifest.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "class", "split", "sha256", "width", "height", "source"])
        writer.writerows(sorted(rows))
    return manifest


def tiny_onnx(classes: int, skill: float, bias: float, seed: int, sharpness: float) -> onnx.ModelProto:
    """Colour to logits by a 1x1 convolution; `skill` 1 knows the colours, 0 is random; `bias` favours class 0."""
    random = np.random.default_rng(seed)
    ideal = np.stack([_direction(label) for label in range(classes)])
    weights = sharpness * (skill * ideal + (1 - skill) * random.normal(0, 1, ideal.shape))
    offset = -0.5 * weights.sum(axis=1)
    offset[0] += bias
    constants = {
        "scale": np.array(255.0, np.float32),
        "weights": weights[:, :, None, None].astype(np.float32),
        "offset": offset.astype(np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("GlobalAveragePool", ["planes"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["embedding"]),
        helper.make_node("ReduceL2", ["embedding"], ["novelty"], axes=[1], keepdims=0),
        helper.make_node("Conv", ["planes", "weights", "offset"], ["map"]),
        helper.make_node("AveragePool", ["map"], ["activation"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("GlobalAveragePool", ["map"], ["logit_planes"]),
        helper.make_node("Flatten", ["logit_planes"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", SIZE, SIZE, 3])
    outputs = [
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", classes]),
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3]),
        helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["n"]),
        helper.make_tensor_value_info("activation", TensorProto.FLOAT, ["n", classes, SIZE // 8, SIZE // 8]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", [image], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def tiny_model_folder(
    path: Path,
    classes: Sequence[str] = CLASSES,
    *,
    skill: float = 1.0,
    bias: float = 0.0,
    seed: int = 0,
    sharpness: float = 30.0,
    manifest: Manifest | None = None,
    reference: bool = True,
    **card: Any,
) -> ModelFolder:
    """A complete model folder at `path` (replaced if there). `card` overrides keys of its model card."""
    shutil.rmtree(path, ignore_errors=True)
    (path / "self_check").mkdir(parents=True)
    onnx.save(tiny_onnx(len(classes), skill, bias, seed, sharpness), path / MODEL_FILE)
    pictures = {label: tiny_picture(label, 1000 + label) for label in range(len(classes))}
    for label, data in pictures.items():
        (path / f"self_check/{label}.png").write_bytes(data)
    values = _card(tuple(classes), manifest) | card
    classifier = Classifier(ModelFolder(path, values))
    beside = {
        "behaviour": good_behaviour(),
        "precision": {"serves": "fp32", "why": "a test says so"},
        "glance": {"serves": False, "why": "a test does without"},
    }
    values.setdefault("metrics", _metrics(classifier, manifest) | beside)
    if reference:
        tiny_reference(classifier).save(path)
    values["self_check"] = [
        {
            "file": f"self_check/{label}.png",
            "label": classes[label],
            "probabilities": classifier.predict_bytes([data])[0].tolist(),
        }
        for label, data in pictures.items()
    ]
    with tempfile.TemporaryDirectory() as scratch:
        values.setdefault("mistakes", mistakes.embed(_mistakes(classifier, Path(scratch)), path))
    (path / CARD_FILE).write_text(json.dumps(values, indent=2) + "\n")
    write_sums(path)
    return ModelFolder.open(path)


def _mistakes(classifier: Classifier, folder: Path) -> list[Mistake]:
    """Two pictures with so much noise that the model errs, as files in `folder`."""
    names = classifier.folder.classes
    found: list[Mistake] = []
    for seed in range(100):
        data = tiny_picture(0, 2000 + seed, noise=0.3)
        answer = classifier.predict_bytes([data])[0]
        if answer.argmax() != 0 and len(found) < 2:
            path = folder / f"mistake-{seed}.png"
            path.write_bytes(data)
            found.append(Mistake(path, names[0], names[int(answer.argmax())], float(answer.max())))
    return found


def tiny_reference(classifier: Classifier) -> Reference:
    """Of fresh tiny pictures of all classes in equal parts; a sketch is the mean colour, scaled to about one."""
    folder = classifier.folder
    images = np.stack(
        [
            load(tiny_picture(number % len(folder.classes), 5000 + number), folder.preprocessing)
            for number in range(REFERENCE_PICTURES)
        ]
    )
    probabilities, embeddings = classifier.run(images, ("probabilities", "embedding"))
    properties = [measure(image, 40, 40) for image in images]
    return Reference.build(properties, probabilities, embeddings, 20 * np.eye(3, dtype=np.float32), 512)


def _card(classes: tuple[str, ...], manifest: Manifest | None) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "cats-vs-dogs",
        "architecture": "tiny",
        "classes": list(classes),
        "preprocessing": {"size": SIZE, "resize": SIZE},
        "temperature": 1.0,
        "abstention": {
            "confidence_threshold": 0.6,
            "risk": 0.01,
            "novelty_threshold": 10.0,
            "novelty_quantile": 0.995,
        },
        "parity": {"pictures": 64, "max_difference": 1e-6, "tolerance": 1e-4},
        "lineage": {
            "git_commit": COMMIT,
            "git_dirty": False,
            "data_hash": manifest.sha256 if manifest else "d" * 64,
            "test_hash": manifest.test_sha256 if manifest else "e" * 64,
            "params_hash": "f" * 64,
            "seed": 1,
            "created": "2026-01-01T00:00:00+00:00",
            "environment": {"python": "3.11"} | ({"cykooz-resizer": "4"} if QUICK else {}),
        },
        "params": {"train": {"lr": 0.003, "seed": 1, "architecture": "tiny"}, "data": {"rename": {"cats": "cat"}}},
    }


def good_behaviour() -> dict[str, Any]:
    """What evaluation records of a model that behaves well (training.evaluation.behaviour)."""
    same = {"same_answer": {"value": 1.0, "interval": [0.96, 1.0]}, "mean_change": 0.01}
    less = {
        "confidence_before": 0.95,
        "confidence_after": 0.9,
        "change": {"value": -0.05, "interval": [-0.06, -0.04]},
    }
    return {
        "pictures": 96,
        "invariance": {"mirrored": same, "cropped": same},
        "direction": {"blurred": less, "noisy": less},
        "minimum": {"pictures": 10, "right": 10, "wrong": []},
    }


def _metrics(classifier: Classifier, manifest: Manifest | None) -> dict[str, Any]:
    """Accuracy and log-loss on the test rows, as `evaluate` gives them; fixed values without data."""
    if manifest is None:
        return {"accuracy": 0.9, "accuracy_interval": [0.85, 0.95], "log_loss": 0.3, "pictures": 100}
    pictures = manifest.split("test")
    names = classifier.folder.classes
    probabilities = classifier.predict_bytes([picture.path.read_bytes() for picture in pictures])
    right = [names[row.argmax()] == picture.label for row, picture in zip(probabilities, pictures, strict=True)]
    taken = [
        row[names.index(picture.label)] if picture.label in names else 1e-7
        for row, picture in zip(probabilities, pictures, strict=True)
    ]
    return {
        "accuracy": float(np.mean(right)),
        "accuracy_interval": [0.0, 1.0],
        "log_loss": float(-np.log(np.clip(taken, 1e-7, 1)).mean()),
        "pictures": len(pictures),
    }


def tiny_project(root: Path, classes: Sequence[str] = CLASSES, per_class: int = 100) -> Path:
    """A project folder: the real params.yaml, pictures, dvc.lock, and a git commit. Models come by `tiny_export`."""
    root.mkdir(parents=True, exist_ok=True)
    tiny_data(root, classes, per_class)
    shutil.copy(SOURCE / "params.yaml", root / "params.yaml")
    shutil.copy(SOURCE / ".gitignore", root / ".gitignore")
    (root / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], [*identity, "commit", "-q", "-m", "a tiny project"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


def tiny_export(root: Path, classes: Sequence[str] = CLASSES, **how: Any) -> ModelFolder:
    """What train, evaluate and export leave in the project: the model folder, history, performance, a plot."""
    manifest = Manifest.read(root / "data/manifest.csv", root / "data/processed")
    folder = tiny_model_folder(root / "models/model", classes, manifest=manifest, **how)
    (root / "model_performance.json").write_text(json.dumps(folder.card["metrics"], indent=2) + "\n")
    (root / "models/history.csv").write_text(
        "epoch,train_loss,train_accuracy,val_loss,val_accuracy\n1,0.6,0.7,0.5,0.75\n2,0.4,0.8,0.4,0.85\n"
    )
    (root / "models/plots").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), "white").save(root / "models/plots/learning_curves.png")
    return folder
