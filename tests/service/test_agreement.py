"""Training and the service take the same files for the same reasons, and see the same pixels in them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from data.pictures import Examined, Rules, Task, examine
from tests import parts
from tests.service.pictures import good_kinds
from tests.service.test_bad_input import ONE_FILE
from tests.unit.model.picture.test_values import references
from training import params
from training.model.picture.header import Limits, PictureError
from training.model.preprocess import Preprocessing, load

ROOT = Path(__file__).parents[2]
HOW = Preprocessing(size=64, resize=64)
SAME = 2  # levels
LOSSY = 4.0  # levels, mean, of a noisy picture: what is not kept as it is, and was a JPEG, is written as JPEG again
NOT_OF_THE_PICTURE = {"too many bytes"}  # the limit is of an upload


def files() -> dict[str, bytes]:
    """Every picture file of the tests, good and bad, and the cases where they are there."""
    found = {f"good: {name}": data for name, data in good_kinds().items()}
    found |= {f"bad: {name}": data for name, (data, *_) in ONE_FILE.items() if name not in NOT_OF_THE_PICTURE}
    found |= {name: data for name, (data, _) in references().items()}
    return found | {f"case: {name}": data for name, data in cases().items()}


def cases() -> dict[str, bytes]:
    """Files that were once seen wrongly; none on a machine without them."""
    folder = parts.picture_cases()
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder else {}


def answered(client: httpx.Client, pictures: list[bytes]) -> list[str]:
    """The code of each refusal of /predict_batch, or `taken`."""
    answers: list[dict[str, Any]] = []
    for start in range(0, len(pictures), 32):
        parts = [("images", data) for data in pictures[start : start + 32]]
        answers += client.post("/predict_batch", files=parts).raise_for_status().json()
    return [each["error"]["code"] if "error" in each else "taken" for each in answers]


def test_prepare_and_predict_take_the_same_files_and_see_the_same(client: httpx.Client, tmp_path: Path) -> None:
    rules = Rules(params.load(ROOT / "params.yaml").prepare.min_side, 512)
    kept, wrong = 0, {}
    for (name, data), served in zip(files().items(), answered(client, list(files().values())), strict=True):
        (tmp_path / "file").write_bytes(data)
        found = examine(Task("cat/file", tmp_path / "file", tmp_path), rules)
        if not isinstance(found, Examined):
            if found.reason != served:
                wrong[name] = f"prepare: {found.reason}, predict: {served}"
            continue
        kept += 1
        processed = found.path.read_bytes()
        apart = np.abs(load(data, HOW).astype(np.int16) - load(processed, HOW))
        if served != "taken":
            wrong[name] = f"prepare keeps it, predict: {served}"
        elif apart.max() > SAME and not (found.path.suffix == ".jpg" and apart.mean() < LOSSY):
            wrong[name] = f"pixels differ by {apart.max()}"
    assert wrong == {}
    assert kept > 50


@pytest.mark.needs("picture-cases")
def test_the_cases_that_are_taken_show_what_a_viewer_shows() -> None:
    """They are one picture in different files, one of them in grey and others with the losses of their format."""
    expected = luma(cases()["png_no_iend.png"])
    taken = {}
    for name, data in cases().items():
        with contextlib.suppress(PictureError):
            taken[name] = float(np.abs(luma(data) - expected).mean())
    assert len(taken) >= 7
    assert max(taken.values()) < 3, taken


def luma(data: bytes) -> NDArray[np.float64]:
    weighed: NDArray[np.float64] = load(data, HOW) @ np.array([0.299, 0.587, 0.114])
    return weighed


def test_by_default_both_have_the_same_limits() -> None:
    settings = params.load(ROOT / "params.yaml")
    serve, prepare = settings.serve, settings.prepare
    assert serve.min_side == prepare.min_side
    served = Limits(serve.max_pixels, serve.min_side, serve.max_aspect, tuple(serve.formats), serve.max_pixels_whole)
    assert served == Limits()
