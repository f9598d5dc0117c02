"""Start the retrain workflow when Alertmanager reports drift: a webhook receiver.

GitHub takes a `repository_dispatch` only in its own format, which no webhook of Alertmanager has; this translates. It
holds the only token that may start the workflow, and accepts only requests that carry its own token. One drift starts
one retraining, however often Alertmanager repeats the alert.

    GITHUB_REPOSITORY   owner/name
    GITHUB_TOKEN_FILE   file with a fine-grained token for that repository: contents, read and write
    GITHUB_API_URL      https://api.github.com, unless it is an enterprise server
    RELAY_TOKEN_FILE    file with the bearer token that Alertmanager must send
    RELAY_STATE_FILE    remembers which drifts started a retraining; without it a restart forgets them
    WEBHOOK_SECRET_FILE and the rest of `python -m monitoring.promoted --help`: accepts MLflow's webhook too
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import httpx
import uvicorn
from pydantic import BaseModel, Field, StringConstraints, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from monitoring import promoted, workflow
from monitoring.workflow import Repository
from training.common.command import run_command
from training.common.errors import ExpectedError
from training.common.files import write_text

EVENT = "drift"  # `on: repository_dispatch: types:` of .github/workflows/retrain.yml
MAX_BYTES = 1_000_000  # of a notification
REMEMBERED = 100  # drifts, the latest
log = logging.getLogger("uvicorn.error")
Text = Annotated[str, StringConstraints(max_length=2000)]


class Alert(BaseModel):
    """One of Alertmanager's alerts, as far as it matters here."""

    status: Literal["firing", "resolved"]
    labels: dict[Text, Text]
    annotations: dict[Text, Text]
    startsAt: Text

    @property
    def drift(self) -> str:
        """Which drift it is about: an alert of the same drift may fire anew, after an outage."""
        return self.annotations.get("drift", f"{self.labels['version']} since {self.startsAt}")


class Notification(BaseModel):
    """What Alertmanager sends."""

    alerts: Annotated[list[Alert], Field(max_length=1000)]


class RelayError(ExpectedError):
    """The environment does not say where to pass alerts on, or with which tokens."""


@dataclass(frozen=True)
class Relay:
    """Where to pass an alert on, and the tokens of both sides."""

    repository: Repository
    own_token: str
    state: Path | None = None
    started: list[str] = field(default_factory=list)  # drifts, the latest last
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Relay:
        """RelayError names the variable that is missing; OSError the file."""
        names = ("GITHUB_REPOSITORY", "GITHUB_TOKEN_FILE", "RELAY_TOKEN_FILE")
        missing = [name for name in names if not environ.get(name)]
        if missing:
            raise RelayError(f"{', '.join(missing)} must be set: see python -m monitoring.relay --help")
        state = Path(environ["RELAY_STATE_FILE"]) if environ.get("RELAY_STATE_FILE") else None
        own = workflow.token(environ["RELAY_TOKEN_FILE"])
        return cls(Repository.from_environment(environ), own, state, _read(state))

    async def retrain(self, request: Request) -> Response:
        """202: passed on. 204: the alert is over, or its drift has started one. 502: GitHub did not take it,
        Alertmanager tries again."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self.own_token.encode()):
            return PlainTextResponse("wrong token\n", 401)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_BYTES:
                return PlainTextResponse(f"more than {MAX_BYTES} bytes\n", 413)
        try:
            firing = [each for each in Notification.model_validate_json(body).alerts if each.status == "firing"]
            told = [(each.drift, payload(each)) for each in firing]
        except (ValidationError, KeyError) as error:
            return PlainTextResponse(f"not a notification of Alertmanager: {str(error)[:500]}\n", 400)
        async with self.lock:  # Alertmanager tries again while GitHub is slow
            new = [each for each in told if each[0] not in self.started]
            return await self._dispatch(*new[0]) if new else Response(status_code=204)

    async def _dispatch(self, drift: str, found: dict[str, str]) -> Response:
        try:
            await self.repository.start(EVENT, found)
        except httpx.HTTPError as error:
            log.error("%s did not start the retrain workflow: %s", self.repository.dispatches, error)
            return PlainTextResponse(f"GitHub did not take it: {error}\n", 502)
        log.info("retrain workflow started for version %s", found["version"])
        self._remember(drift)
        return PlainTextResponse("started\n", 202)

    def _remember(self, drift: str) -> None:
        self.started.append(drift)
        del self.started[:-REMEMBERED]
        if self.state:
            try:
                write_text(self.state, json.dumps(self.started) + "\n")
            except OSError as error:
                log.error("%s cannot be written: a restart forgets what was started: %s", self.state, error.strerror)

    def app(self) -> Starlette:
        promoted_too = promoted.from_environment().routes() if os.environ.get("WEBHOOK_SECRET_FILE") else []
        return Starlette(routes=[Route("/retrain", self.retrain, methods=["POST"]), *promoted_too])


def payload(alert: Alert) -> dict[str, str]:
    """What the workflow is told of an alert; KeyError names what it lacks."""
    return {"version": alert.labels["version"], "since": alert.startsAt, "reason": alert.annotations["summary"]}


def _read(state: Path | None) -> list[str]:
    """The drifts in the file; none when it is not there or damaged."""
    if state is None or not state.exists():
        return []
    try:
        found = json.loads(state.read_text())
    except ValueError:
        found = None
    if not isinstance(found, list):
        log.warning("%s is damaged: it is written anew", state)
        return []
    return [str(each) for each in found]


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m monitoring.relay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    parser.add_argument("--port", type=int, default=9095, help="default: %(default)s")
    arguments = parser.parse_args()
    uvicorn.run(Relay.from_environment().app(), host=arguments.host, port=arguments.port, access_log=False)


if __name__ == "__main__":
    run_command(main)
