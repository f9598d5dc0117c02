"""Compare a running service with its model card, on labelled pictures.

Without --url, the pictures are scored offline. Three findings are errors (exit code 1): the service serves another
model than is examined here; train/serve skew, that is, other probabilities than the same model gives offline; an
accuracy significantly below the interval on the model card. With --check-drift the exit code is 3 if only the request
log drifted (monitoring.drift).

The API key is API_KEY of the environment, or else the first of API_KEYS or API_KEYS_FILE. The pictures sent count
neither in the drift check nor in what the report says of production (monitoring.request_log.CHECK_PREFIX).
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import requests
from numpy.typing import NDArray

from data.tree import How, find_tree
from monitoring import drift, report, request_log, served
from monitoring.finding import DRIFT, Finding
from monitoring.judged import Judged, Production, Skew
from monitoring.served import Served
from training import params
from training.common.command import run_command
from training.common.cores import usable_cores
from training.common.errors import ExpectedError
from training.common.files import write_text
from training.common.progress import Bar
from training.model.columns import SCORED, of_classes
from training.score import PictureFile, score, table, with_labels
from training.serving.settings import own_key

TOLERANCE = 0.01  # in probability, served against offline
MAX_SKEWED = 0.001  # share of the pictures that may differ by more
TIMEOUT_S = 60


class PerformanceError(ExpectedError):
    """The service cannot be asked, or it does not do what the model card says."""


class Client:
    """Asks the service at `url`, with API_KEY or the first of API_KEYS or API_KEYS_FILE in the environment."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.session = requests.Session()
        key = os.environ.get("API_KEY")
        self.session.headers.update({"X-API-Key": key} if key else own_key())

    def check_model(self, model: Served) -> None:
        """PerformanceError unless the service serves this very model."""
        card = self._json("GET", "/model")
        if card.get("lineage") != model.folder.card["lineage"]:
            theirs = card.get("model", {}).get("bento_tag") or "another model"
            raise PerformanceError(
                f"{self.url} serves {theirs}, here is version {model.version} ({model.folder.sha256[:16]}): "
                "name its model folder with --model, or bring its champion: python -m training.registry pull"
            )

    def answer(self, path: Path, classes: Sequence[str]) -> tuple[NDArray[np.float32] | str, float]:
        """Probabilities float32 [classes] or the code of the refusal, and the milliseconds it took."""
        started = time.perf_counter()
        headers = {"X-Request-ID": f"{request_log.CHECK_PREFIX}{uuid.uuid4().hex}"}
        found = self._json("POST", "/predict", files={"image": path.read_bytes()}, headers=headers)
        taken = (time.perf_counter() - started) * 1000
        if "error" in found:
            return str(found["error"]["code"]), taken
        return np.array([found["probabilities"][name] for name in classes], np.float32), taken

    def _json(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """The JSON that is answered; a picture that is refused (422 and its like) is an answer too."""
        try:
            response = self.session.request(method, self.url + path, timeout=TIMEOUT_S, **body)
        except requests.RequestException as error:
            raise PerformanceError(f"{self.url}{path} cannot be asked: {error}") from None
        status = response.status_code
        if status == 401:
            sent = "X-API-Key" in self.session.headers
            mend = "the one in API_KEY is none of its keys" if sent else "set API_KEY in the environment"
            raise PerformanceError(f"{self.url} asks for an API key: {mend}")
        try:
            found = response.json()
        except ValueError:
            found = None
        if not isinstance(found, dict) or status == 404:
            raise PerformanceError(
                f"{self.url}{path} is not the service ({status}): --url is its own address, without the path of a "
                "page, such as http://127.0.0.1:3000"
            )
        if status in (403, 429) or status >= 500:
            raise PerformanceError(f"{self.url}{path} answers {status}: {found}")
        return found


def _chosen_pictures(root: Path, rename: Mapping[str, str]) -> tuple[list[PictureFile], str]:
    """The pictures of the class folders in `root` with their classes, and what is scored, in words: of a tree with
    `train` and `test` only the latter. DataError when there is no such tree."""
    tree = find_tree(root, How(rename))
    names, description = tree.pictures, str(root)
    if tree.has_test_folder():
        names = {name: path for name, path in names.items() if name.startswith("test/")}
        description = f"{root}, its folder test only: the model may have learnt from train"
    return with_labels(names, rename), description


def _check_classes(pictures: Sequence[PictureFile], classes: Sequence[str]) -> None:
    """PerformanceError when a folder is called otherwise than the classes of the model."""
    unknown = sorted({str(picture.path.parent) for picture in pictures if picture.label not in classes})
    if unknown:
        raise PerformanceError(
            f"{', '.join(unknown)}: the model knows {', '.join(classes)} only; rename or remove the folder, "
            "or name its class in params.yaml (data.rename)"
        )


def judge(model: Served, pictures: Sequence[PictureFile], folder: str, client: Client | None) -> Judged:
    """The answers of the service for pictures of `folder`, compared with those of the same model offline; without a
    service, the latter alone."""
    if client is None:
        return Judged(model, "the model offline", folder, score(model.folder, pictures))
    client.check_model(model)
    classes = model.folder.classes
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = pool.map(lambda picture: client.answer(picture.path, classes), pictures)
        answers, milliseconds = zip(*Bar(found, "asking the service", len(pictures), unit="picture"), strict=True)
    rows = table(classes, pictures, answers)
    skew = compare(rows, score(model.folder, pictures), classes)
    return Judged(model, client.url, folder, rows, skew, milliseconds)


def compare(online: pd.DataFrame, offline: pd.DataFrame, classes: Sequence[str]) -> Skew:
    """Where they differ by more than TOLERANCE; a picture that only one of them refuses differs by 1."""
    refused = online["refused"].notna().to_numpy() != offline["refused"].notna().to_numpy()
    columns = of_classes(classes, SCORED)
    differences = np.abs(online[columns].to_numpy(float) - offline[columns].to_numpy(float)).max(axis=1)
    differences = np.where(refused, 1.0, np.nan_to_num(differences))
    worst = int(differences.argmax())
    relabelled = (online["prediction"].fillna("") != offline["prediction"].fillna("")).sum()
    return Skew(
        int((differences > TOLERANCE).sum()),
        float(differences[worst]),
        str(online["path"].iloc[worst]),
        int(relabelled),
    )


def faults(judged: Judged) -> list[str]:
    """What is wrong, in words; empty when all is as the model card says."""
    found = []
    skew = judged.skew
    if skew and skew.pictures > MAX_SKEWED * judged.pictures:
        found.append(
            f"train/serve skew: {skew.pictures} of {judged.pictures} pictures are served with probabilities that "
            f"differ by more than {TOLERANCE:g} from those of the same model offline "
            f"(worst {skew.worst:.2g}: {skew.path})"
        )
    if skew and skew.relabelled > MAX_SKEWED * judged.pictures:
        found.append(f"train/serve skew: {skew.relabelled} of {judged.pictures} pictures are served with another class")
    low, (_, high) = judged.model.folder.card["metrics"]["accuracy_interval"][0], judged.interval
    if high < low:
        found.append(
            f"accuracy {judged.accuracy:.4f} (95 % interval up to {high:.4f}) is below the interval of the model card, "
            f"which starts at {low:.4f}"
        )
    return found


def address(text: str) -> str:
    """`http://HOST:PORT`, also with https or a path."""
    if not re.match(r"https?://[^/\s]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no address of a service: it begins with http:// or https://")
    return text


def parser() -> argparse.ArgumentParser:
    one = argparse.ArgumentParser(
        "python -m monitoring.performance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    text = "class folders with labelled pictures; of a tree with train and test only the latter is scored"
    one.add_argument("--test-dir", type=Path, required=True, help=text)
    one.add_argument("--url", type=address, help="of the running service (default: the model is scored offline)")
    one.add_argument("--model", type=Path, help="model folder (default: what the service here serves)")
    one.add_argument("--log-dir", type=Path, help="folder of the request log (default serve.log_dir)")
    one.add_argument("--window", type=drift.duration, default="24h", help="of the request log (default 24h)")
    one.add_argument("--report", type=Path, help="write a page with plots to this HTML file")
    one.add_argument("--check-drift", action="store_true", help="exit 3 when the request log drifted")
    return one


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    settings = params.load()
    pictures, folder = _chosen_pictures(arguments.test_dir, settings.data.rename)
    model = served.find(arguments.model)
    _check_classes(pictures, model.folder.classes)
    print(f"pictures of {folder}")
    judged = judge(model, pictures, folder, Client(arguments.url) if arguments.url else None)
    wrong = faults(judged)
    drifted = False
    if arguments.check_drift or arguments.report:
        root = arguments.log_dir or drift.default_log_dir()
        production, sections = Production(model.folder.classes), [f"<p>There is no request log in {root}."]
        if arguments.check_drift or root.is_dir():
            finding, sections = _look_back(model, root, arguments.window, settings.drift, production)
            drifted = finding.exit_code == DRIFT
            print(finding.text())
        if arguments.report:
            write_text(arguments.report, report.performance_page(judged, wrong, production, sections))
    print(judged.text())
    if wrong:
        raise PerformanceError("; ".join(wrong))
    if drifted and arguments.check_drift:
        sys.exit(DRIFT)


def _look_back(
    model: Served, root: Path, window: timedelta, chosen: params.Drift, production: Production
) -> tuple[Finding, list[str]]:
    """The drift of the last `window` in the request log under `root`, also as sections of a page; what else the log
    tells goes to `production`."""
    folders = drift.log_folders(root)
    production.listen(folders)
    others: Counter[str] = Counter()
    records = production.watching(drift.predictions(folders, model, datetime.now(UTC) - window, others))
    finding, sample = drift.check(model, records, others, window, chosen)
    return finding, list(report.drift_sections(finding, drift.reference_of(model), sample))


if __name__ == "__main__":
    run_command(main)
