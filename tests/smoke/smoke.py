"""Check that a running service works: one line per check.

    --fail-on-error   exit with 1 when a check failed (without it the checks only report)
    --junit FILE      the checks as JUnit XML too

Only the standard library is imported, so that it runs wherever something is deployed from. In the environment:

    API_KEYS, API_KEYS_FILE  the first key is sent (comma between keys, or one a line), as the service itself reads them
    SMOKE_PICTURES           CLASS/NAME pictures with known answers instead of those in tests/smoke/pictures
    PROMETHEUS_URL, GRAFANA_URL, MLFLOW_TRACKING_URI
                             checked when given; on this machine's usual ports they are checked when they answer
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import socket
import sys
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

PICTURES = Path(__file__).parent / "pictures"
TIMEOUT_S = 15.0
CHECK_PREFIX = "check-"  # of our X-Request-IDs: such pictures are no traffic of production (monitoring/request_log.py)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever proxy the environment names
LINEAGE = ("name", "data_hash", "git_commit")
COMPANIONS = {  # name: variable in the environment, usual address on this machine
    "Prometheus": ("PROMETHEUS_URL", "http://127.0.0.1:9090"),
    "Grafana": ("GRAFANA_URL", "http://127.0.0.1:3001"),
    "MLflow": ("MLFLOW_TRACKING_URI", "http://127.0.0.1:5001"),
}


class Failed(Exception):
    """A check that found something else than what must be so."""


def expect(condition: bool, found: str) -> None:
    """Raise Failed with what was found unless `condition` holds."""
    if not condition:
        raise Failed(found)


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            raise Failed(f"status {self.status}, and no JSON: {self.body[:80]!r}") from None


def fetch(url: str, data: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
    """One request, GET or, with `data`, POST. An error status is an answer; Failed when there is none."""
    request = urllib.request.Request(url, data, dict(headers or {}))
    ask = DIRECT.open if is_here(url) else urllib.request.urlopen
    try:
        with ask(request, timeout=TIMEOUT_S) as answer:
            return Answer(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Failed(f"{url} does not answer: {error}") from None


def is_here(url: str) -> bool:
    """Whether `url` is on this machine's loopback."""
    return urllib.parse.urlsplit(url).hostname in LOOPBACK


@dataclass
class Service:
    """The service under test, and the pictures whose answers are known: (class, path)."""

    url: str
    pictures: list[tuple[str, Path]]
    key: str = ""

    @property
    def credentials(self) -> dict[str, str]:
        return {"X-API-Key": self.key} if self.key else {}

    def get(self, path: str) -> Answer:
        return fetch(self.url + path, headers=self.credentials)

    def post(self, path: str, data: bytes, media: str = "image/png") -> Answer:
        """With a request id of our own, so that the picture counts as no traffic of production."""
        headers = {"Content-Type": media, "X-Request-ID": f"{CHECK_PREFIX}smoke-{uuid.uuid4().hex}"}
        return fetch(self.url + path, data, headers | self.credentials)

    def predict(self, picture: Path) -> dict[str, Any]:
        answer = self.post("/predict?abstain=false", picture.read_bytes())
        expect(answer.status == 200, f"{picture.name}: status {answer.status}: {answer.body[:200]!r}")
        values: dict[str, Any] = answer.json()
        return values

    def counted(self) -> float:
        """Answered requests to /predict, as /metrics counts them."""
        answer = self.get("/metrics")
        expect(answer.status == 200, f"/metrics: status {answer.status}")
        lines = answer.body.decode().splitlines()
        rows = [line for line in lines if line.startswith("bentoml_service_request_total{")]
        asked = [row for row in rows if 'endpoint="/predict"' in row and 'http_response_code="200"' in row]
        return sum(float(row.rsplit(" ", 1)[1]) for row in asked)


def alive(service: Service) -> str:
    status = service.get("/livez").status
    expect(status == 200, f"/livez: status {status}")
    return "/livez says yes"


def ready(service: Service) -> str:
    status = service.get("/readyz").status
    expect(status == 200, f"/readyz: status {status}")
    return "/readyz says yes"


def health(service: Service) -> str:
    """/health names the model, with its lineage."""
    values = service.get("/health").json()
    expect(values.get("status") == "ok", f"/health: {values}")
    model = values["model"]
    empty = [key for key in LINEAGE if not model.get(key)]
    expect(not empty, f"/health: no {', '.join(empty)} of the model")
    return f"{model['name']} version {model.get('version')}, {model.get('bento_tag')}"


def known_pictures(service: Service) -> str:
    """Every picture with a known answer gets it."""
    classes = set(service.get("/model").json()["classes"])
    strangers = {label for label, _ in service.pictures} - classes
    mend = "name a folder of CLASS/NAME pictures in SMOKE_PICTURES"
    expect(not strangers, f"the model knows {sorted(classes)}, the pictures show {sorted(strangers)}: {mend}")
    wrong = []
    for label, path in service.pictures:
        answer = service.predict(path)
        if answer["label"] != label:
            wrong.append(f"{label}/{path.name} is called {answer['label']} ({answer['confidence']:.2f})")
    expect(not wrong, "; ".join(wrong))
    return f"{len(service.pictures)} of {len(service.pictures)} right"


def lineage(service: Service) -> str:
    """An answer names the model that /health names, and carries an id."""
    answer = service.predict(service.pictures[0][1])
    model = service.get("/health").json()["model"]
    expect(answer["model"] == model, f"/predict answers as {answer['model']}, /health names {model}")
    expect(bool(answer.get("request_id")), "no request_id")
    expect(abs(sum(answer["probabilities"].values()) - 1) < 1e-3, f"probabilities: {answer['probabilities']}")
    return f"data {model['data_hash'][:10]}, commit {model['git_commit'][:10]}"


BAD_INPUT: dict[str, tuple[int, Callable[[Service], Answer]]] = {
    "no picture": (415, lambda service: service.post("/predict", b"this is no picture")),
    "no such content type": (415, lambda service: service.post("/predict", b"a picture", "text/plain")),
    "nothing": (422, lambda service: service.post("/predict", b"")),
    "GET": (405, lambda service: service.get("/predict")),
    "no such address": (404, lambda service: service.get("/no-such-address")),
}


def bad_input(service: Service) -> str:
    """Bad input gets its 4xx, in the one shape of errors."""
    for name, (status, ask) in BAD_INPUT.items():
        answer = ask(service)
        expect(answer.status == status, f"{name}: status {answer.status}, not {status}")
        error = answer.json().get("error")
        told = isinstance(error, dict) and all(error.get(key) for key in ("code", "message", "hint"))
        expect(told, f"{name}: no code, message and hint in {answer.body[:120]!r}")
    return ", ".join(str(status) for status, _ in BAD_INPUT.values())


def metrics(service: Service) -> str:
    """/metrics counts what is asked. Behind a balancer the next look may meet another replica: look again."""
    before, deadline = service.counted(), time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        service.predict(service.pictures[0][1])
        after = service.counted()
        if after > before > 0:
            return f"/predict counted {before:.0f}, then {after:.0f}"
        before = after
    raise Failed(f"the counter of /predict stays at {before:.0f}")


def documentation(service: Service) -> str:
    page = service.get("/docs")
    expect(page.status == 200 and b"<html" in page.body, f"/docs: status {page.status}")
    paths = service.get("/docs.json").json()["paths"]
    missing = {"/predict", "/predict_batch", "/explain", "/heatmap", "/health"} - paths.keys()
    expect(not missing, f"/docs.json does not describe {', '.join(sorted(missing))}")
    return f"{len(paths)} addresses described"


SERVICE_CHECKS: dict[str, Callable[[Service], str]] = {
    "live": alive,
    "ready": ready,
    "health": health,
    "known pictures": known_pictures,
    "lineage": lineage,
    "bad input": bad_input,
    "metrics": metrics,
    "docs": documentation,
}


def prometheus(url: str) -> str:
    """Every target is up, and the service is among them."""
    targets = fetch(f"{url}/api/v1/targets?state=active").json()["data"]["activeTargets"]
    down = [
        f"{one['labels'].get('job')} {one['scrapeUrl']}: {one['lastError']}" for one in targets if one["health"] != "up"
    ]
    expect(not down, "; ".join(down))
    jobs = {one["labels"].get("job") for one in targets}
    expect("classifier" in jobs, f"no job classifier among {sorted(map(str, jobs))}")
    return f"{len(targets)} targets up"


def grafana(url: str) -> str:
    values = fetch(f"{url}/api/health").json()
    expect(values.get("database") == "ok", f"/api/health: {values}")
    return f"Grafana {values.get('version')}"


def mlflow(url: str) -> str:
    answer = fetch(f"{url}/health")
    expect((answer.status, answer.body.strip()) == (200, b"OK"), f"/health: status {answer.status}")
    return "MLflow answers"


COMPANION_CHECKS: dict[str, Callable[[str], str]] = {"Prometheus": prometheus, "Grafana": grafana, "MLflow": mlflow}


def companions(service_url: str, environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(name, url) of what to check beside the service: what is given, and what answers here if the service is here."""
    here = is_here(service_url)
    for name, (variable, usual) in COMPANIONS.items():
        given = environ.get(variable, "")
        if re.match(r"https?://", given):
            yield name, given.rstrip("/")
        elif here and not given and _listens(usual):
            yield name, usual


def _listens(url: str) -> bool:
    parts = urllib.parse.urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=1):
            return True
    except OSError:
        return False


@dataclass(frozen=True)
class Result:
    name: str
    failure: str | None
    note: str
    seconds: float

    def line(self) -> str:
        return f"{'ok  ' if self.failure is None else 'FAIL'}  {self.name:<15} {self.failure or self.note}"


def run(name: str, check: Callable[[], str]) -> Result:
    """One check; whatever it raises is a failure of the check, not of this program."""
    begun = time.monotonic()
    try:
        note, failure = check(), None
    except Failed as error:
        note, failure = "", str(error)
    except (KeyError, TypeError, AttributeError, ValueError):  # an answer of another shape
        note, failure = "", f"unexpected answer: {traceback.format_exc(limit=-1).strip().splitlines()[-1]}"
    return Result(name, failure, note, time.monotonic() - begun)


def known(folder: Path) -> list[tuple[str, Path]]:
    """(class, path) of the pictures in CLASS/NAME; SystemExit without any."""
    found = [(path.parent.name, path) for path in sorted(folder.glob("*/*")) if path.is_file()]
    if not found:
        sys.exit(f"error: {folder} holds no CLASS/NAME picture: mend SMOKE_PICTURES")
    return found


def first_key(environ: Mapping[str, str]) -> str:
    """The key that is sent, or "" without any; SystemExit when API_KEYS_FILE cannot be read."""
    found = environ.get("API_KEYS", "").split(",")
    path = environ.get("API_KEYS_FILE")
    if path:
        try:
            found += Path(path).read_text().splitlines()
        except OSError as error:
            sys.exit(f"error: API_KEYS_FILE={path} cannot be read: {error.strerror}")
    return next((key.strip() for key in found if key.strip()), "")


def write_junit(path: Path, url: str, results: list[Result]) -> None:
    failures = sum(one.failure is not None for one in results)
    seconds = sum(one.seconds for one in results)
    suite = ElementTree.Element(
        "testsuite", name=f"smoke {url}", tests=str(len(results)), failures=str(failures), time=f"{seconds:.3f}"
    )
    for one in results:
        case = ElementTree.SubElement(suite, "testcase", classname="smoke", name=one.name, time=f"{one.seconds:.3f}")
        if one.failure is not None:
            ElementTree.SubElement(case, "failure", message=one.failure)
    part = path.with_name(f"{path.name}.part")
    ElementTree.ElementTree(suite).write(part, encoding="utf-8", xml_declaration=True)
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        "smoke.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", required=True, help="of the service, for example http://127.0.0.1:3000")
    parser.add_argument("--fail-on-error", action="store_true", help="exit with 1 when a check failed")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the checks as JUnit XML")
    arguments = parser.parse_args()
    pictures = known(Path(os.environ.get("SMOKE_PICTURES") or PICTURES))
    service = Service(arguments.url.rstrip("/"), pictures, first_key(os.environ))
    checks = [(name, partial(check, service)) for name, check in SERVICE_CHECKS.items()]
    checks += [(name, partial(COMPANION_CHECKS[name], url)) for name, url in companions(service.url, os.environ)]
    results = []
    for name, check in checks:
        results.append(run(name, check))
        print(results[-1].line(), flush=True)
    failed = sum(one.failure is not None for one in results)
    print(f"{len(results) - failed} of {len(results)} checks passed at {service.url}")
    if arguments.junit:
        write_junit(arguments.junit, service.url, results)
    sys.exit(1 if failed and arguments.fail_on_error else 0)


if __name__ == "__main__":
    main()
