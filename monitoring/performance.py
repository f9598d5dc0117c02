"""Does the service still answer as its model card says? Labelled pictures are sent to it, or scored offline.

Three things are errors (exit code 1): the service serves another model than is examined here; train/serve skew, that is
probabilities unlike those of the same model offline; an accuracy surely below the interval on the model card. With
--check-drift the exit code is 3 when the request log drifted (monitoring.drift) and nothing else is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import requests
from numpy.typing import NDArray
from tqdm import tqdm

from monitoring import drift, report, request_log, served
from monitoring.drift import DRIFT
from monitoring.served import Served
from training import params
from training.champion import replace_text
from training.command import run_command
from training.errors import ExpectedError
from training.inference import usable_cores
from training.metrics import Floats, Labels, accuracy_interval
from training.score import Picture, labelled, score, summary, table

TOLERANCE = 0.01  # in probability, served against offline
MAX_SKEWED = 0.001  # share of the pictures that may differ by more
TIMEOUT_S = 60


class PerformanceError(ExpectedError):
    """The service cannot be asked, or it does not do what the model card says."""


@dataclass(frozen=True)
class Skew:
    """On how many pictures the service answers otherwise than the model offline, by how much at worst, and on how many
    with another class."""

    pictures: int
    worst: float
    path: str
    relabelled: int


@dataclass(frozen=True)
class Judged:
    """Answers for labelled pictures: the rows of training.score; `milliseconds` each took where a service gave them."""

    model: Served
    source: str
    rows: pd.DataFrame
    skew: Skew | None = None
    milliseconds: Sequence[float] = ()

    @property
    def pictures(self) -> int:
        return len(self.rows)

    @property
    def refused(self) -> int:
        return int(self.rows["refused"].notna().sum())

    @cached_property
    def right(self) -> int:
        return int((self.rows["prediction"] == self.rows["label"]).sum())

    @property
    def accuracy(self) -> float:
        return self.right / self.pictures

    @property
    def interval(self) -> tuple[float, float]:
        return accuracy_interval(self.right, self.pictures)

    def known(self) -> tuple[Labels, Floats]:
        """Labels [N] and probabilities [N, classes] of the pictures that have an answer and a class the model knows."""
        classes = list(self.model.folder.classes)
        rows = self.rows[self.rows["prediction"].notna() & self.rows["label"].isin(classes)]
        return np.array([classes.index(label) for label in rows["label"]]), rows[classes].to_numpy(float)


@dataclass
class Production:
    """What the request log and the feedback tell: answers by hour and class, latencies, who was right."""

    classes: Sequence[str]
    hours: defaultdict[datetime, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    milliseconds: list[float] = field(default_factory=list)
    said: dict[str, list[tuple[datetime, bool]]] = field(default_factory=dict)

    def watching(self, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The same records, counted on their way."""
        for record in records:
            self.hours[record["time"].replace(minute=0, second=0, microsecond=0)][record["predicted"]] += 1
            self.milliseconds.append(record["total_ms"])
            yield record

    def listen(self, folders: Sequence[Path]) -> None:
        """Read all feedback, of every version."""
        last = {record["request_id"]: record for folder in folders for record in request_log.read_feedback(folder)}
        for record in sorted(last.values(), key=lambda record: record["time"]):
            self.said.setdefault(record["version"], []).append((record["time"], record["label"] == record["predicted"]))


class Client:
    """Asks the service at `url`, with the API key in the environment variable API_KEY if there is one."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.session = requests.Session()
        if key := os.environ.get("API_KEY"):
            self.session.headers["X-API-Key"] = key

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
        found = self._json("POST", "/predict", files={"image": path.read_bytes()})
        taken = (time.perf_counter() - started) * 1000
        if "error" in found:
            return str(found["error"]["code"]), taken
        return np.array([found["probabilities"][name] for name in classes], np.float32), taken

    def _json(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        """The JSON that is answered; a picture that is refused (422 and its like) is an answer too."""
        try:
            response = self.session.request(method, self.url + path, timeout=TIMEOUT_S, **body)
            found = response.json()
        except (requests.RequestException, ValueError) as error:
            raise PerformanceError(f"{self.url}{path} cannot be asked: {error}") from None
        if response.status_code in (401, 403, 404, 429) or response.status_code >= 500:
            raise PerformanceError(f"{self.url}{path} answers {response.status_code}: {found}")
        return dict(found)


def judge(model: Served, pictures: Sequence[Picture], client: Client | None) -> Judged:
    """The answers of the service, compared with those of the same model offline; without one, the latter alone."""
    if client:
        client.check_model(model)
    offline = score(model.folder, pictures)
    if client is None:
        return Judged(model, "the model offline", offline)
    classes = model.folder.classes
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = pool.map(lambda picture: client.answer(picture.path, classes), pictures)
        answers, milliseconds = zip(*tqdm(found, "ask", len(pictures), unit="picture"), strict=True)
    rows = table(classes, pictures, answers)
    return Judged(model, client.url, rows, compare(rows, offline, classes), milliseconds)


def compare(online: pd.DataFrame, offline: pd.DataFrame, classes: Sequence[str]) -> Skew:
    """Where they differ by more than TOLERANCE; a picture that only one of them refuses differs by 1."""
    refused = online["refused"].notna().to_numpy() != offline["refused"].notna().to_numpy()
    differences = np.abs(online[list(classes)].to_numpy(float) - offline[list(classes)].to_numpy(float)).max(axis=1)
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


def parser() -> argparse.ArgumentParser:
    one = argparse.ArgumentParser(
        "python -m monitoring.performance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    one.add_argument("--test-dir", type=Path, required=True, help="class folders with labelled pictures")
    one.add_argument("--url", help="of the running service (default: the model is scored offline)")
    one.add_argument("--model", type=Path, help="model folder (default: what the service here serves)")
    one.add_argument("--log-dir", type=Path, help="folder of the request log (default serve.log_dir)")
    one.add_argument("--window", type=drift.duration, default="24h", help="of the request log (default 24h)")
    one.add_argument("--report", type=Path, help="write a page with plots to this HTML file")
    one.add_argument("--check-drift", action="store_true", help="exit 3 when the request log drifted")
    return one


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    settings = params.load()
    model = served.find(arguments.model)
    pictures = labelled(arguments.test_dir, settings.data.rename)
    judged = judge(model, pictures, Client(arguments.url) if arguments.url else None)
    wrong = faults(judged)
    drifted = False
    if arguments.check_drift or arguments.report:
        root = arguments.log_dir or drift.default_log_dir()
        production, sections = Production(model.folder.classes), [f"<p>There is no request log in {root}."]
        if arguments.check_drift or root.is_dir():
            finding, sections = look_back(model, root, arguments.window, settings.drift, production)
            drifted = finding.exit_code == DRIFT
            print(finding.text())
        if arguments.report:
            replace_text(arguments.report, report.performance_page(judged, wrong, production, sections))
    print(f"{judged.source}: {summary(judged.rows)}")
    if wrong:
        raise PerformanceError("; ".join(wrong))
    if drifted and arguments.check_drift:
        sys.exit(DRIFT)


def look_back(
    model: Served, root: Path, window: timedelta, chosen: params.Drift, production: Production
) -> tuple[drift.Finding, list[str]]:
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
