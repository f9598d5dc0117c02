"""The champion answers through the live service as it does offline: decoding, batches and threads change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.service.server import Server, batch_sizes, copy_project
from training.model.classifier import Classifier

pytestmark = pytest.mark.needs("champion")
TOGETHER = 8  # requests at once, so that batches form
RARE = 0.001


@pytest.fixture
def client(classifier: Classifier, tmp_path: Path) -> Iterator[httpx.Client]:
    """Of a server with the champion's model folder."""
    path = str(classifier.folder.path.absolute())
    server = Server.start(copy_project(tmp_path), tmp_path / "home", MODEL_PATH=path, SERVE_DRAIN="0")
    try:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            yield client
    finally:
        assert server.stop() == 0


def test_the_champion_is_served_as_it_is_scored(
    client: httpx.Client, classifier: Classifier, pictures: tuple[bytes, ...]
) -> None:
    classes = classifier.folder.classes

    def ask(data: bytes) -> tuple[str, list[float]]:
        answer = client.post("/predict?abstain=false", files={"image": data}).raise_for_status().json()
        return answer["label"], [answer["probabilities"][name] for name in classes]

    with ThreadPoolExecutor(TOGETHER) as pool:
        labels, served = zip(*pool.map(ask, pictures), strict=True)
    sizes = batch_sizes(client)
    offline = np.concatenate([classifier.predict_bytes([data]) for data in pictures])
    assert sizes["count"] < sizes["sum"] == len(pictures)
    assert np.mean(np.abs(np.array(served) - offline) >= 0.01) <= RARE
    assert np.mean(np.array(labels) != np.array(classes)[offline.argmax(1)]) <= RARE
