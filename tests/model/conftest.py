"""The pinned champion, and real pictures to try it on. What is not there is said by the skip."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.manifest import MANIFEST_FILE, PICTURES_FOLDER, DatasetError, Manifest, spread
from tests import parts
from tests.killing import ROOT
from tests.load.pictures import MOST
from tests.load.pictures import pictures as to_send
from training.model import pin as pin_file
from training.model.classifier import Classifier
from training.model.folder import MODEL_FOLDER, ModelFolder
from training.registry import bento_store


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    """The model that models/champion.json pins, from models/model or the BentoML store."""
    try:
        pin = pin_file.read(ROOT / pin_file.PIN_FILE)
    except pin_file.NoChampionError:
        parts.skip("champion", f"no {pin_file.PIN_FILE}")
    exported = ROOT / MODEL_FOLDER
    if exported.is_dir() and (folder := ModelFolder.open(exported)).sha256 == pin.model_sha256:
        return Classifier(folder)
    stored = bento_store.find(pin.bento_tag)
    if stored is None:
        parts.skip("champion", f"its model {pin.bento_tag} is neither in {MODEL_FOLDER} nor in the BentoML store")
    return Classifier(stored)


@pytest.fixture(scope="session")
def photos(classifier: Classifier) -> Path:
    """The folder with photographs for testing, test/cats and test/dogs."""
    folder = parts.photographs()
    assert folder is not None
    if set(classifier.folder.classes) != {"cat", "dog"}:
        parts.skip("photographs", f"cats and dogs: the champion knows {', '.join(classifier.folder.classes)}")
    return folder


@pytest.fixture(scope="session")
def pictures() -> tuple[bytes, ...]:
    """Test pictures of all classes: photographs where there are some, else those of the pipeline."""
    if parts.photographs() is not None:
        return to_send()
    try:
        rows = Manifest.read(ROOT / MANIFEST_FILE, ROOT / PICTURES_FOLDER).split("test")
    except DatasetError as error:
        parts.skip("photographs", f"nor are there prepared pictures: {error}")
    return tuple(row.path.read_bytes() for row in spread(rows, MOST))
