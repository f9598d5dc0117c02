"""Release the new champion when MLflow's webhook reports one: a webhook receiver.

Promotion and rollback both move the alias, so both reach production. The event (`model_version_alias.created`) is
only a hint: the registry itself is asked who is champion, and what its tags say about the gate. `registry pull`, with
which every release begins, then demands the gate's own record. Every event and its outcome is a line of the file of
events. `python -m monitoring.relay` takes the same webhook if WEBHOOK_SECRET_FILE is set.

    WEBHOOK_SECRET_FILE   file with the secret that the webhook was created with in MLflow
    MODEL_NAME            the registered model, register.name of params.yaml
    MLFLOW_TRACKING_URI   the registry, with MLflow's variables for a login (training/model/server.py)
    EVENTS_FILE           logs/champions.jsonl unless set
    RELEASE_COMMAND       releases the champion from this machine, such as
                          sh -c 'python -m training.registry pull && make image && python k8s/deploy.py --type docker';
                          CHAMPION_VERSION and CHAMPION_SHA256 are in its environment
    GITHUB_REPOSITORY, GITHUB_TOKEN_FILE, GITHUB_API_URL
                          without RELEASE_COMMAND: start the workflow release.yml there
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import logging
import os
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from monitoring import workflow
from monitoring.workflow import Repository
from training.common.command import run_command
from training.common.errors import ExpectedError
from training.common.table import plain
from training.model import tracking
from training.model.judged import FORCED, PASS
from training.model.lineage import now
from training.model.pin import ChampionError

EVENT = "champion"  # `on: repository_dispatch: types:` of .github/workflows/release.yml
KIND = ("model_version_alias", "created")
LARGEST = 64 * 1024  # bytes of an event; MLflow's has a few hundred
OLDEST_S = 300.0  # of an event, and how long its id is remembered
SETTLED_S, AGAIN_S = 20.0, 0.25  # a move of aliases takes a second
EVENTS_SIZE = 4 * 2**20  # bytes, then the file becomes the former one
PAUSES_S = (1.0, 4.0, 15.0)  # between tries to start the workflow
GATE = (PASS, FORCED)
log = logging.getLogger("uvicorn.error")


class PromotedError(ExpectedError):
    """The environment does not say whose champion is to be released, or how."""


class NothingToDoError(Exception):
    """The event is no reason to release anything; says why."""


@dataclass(frozen=True)
class Champion:
    """Who is champion, as the registry says."""

    version: str
    model_sha256: str


Release = Callable[[Champion], Awaitable[None]]


@dataclass
class Champions:
    """Takes the webhook's events, and releases who is champion then. One event at a time."""

    name: str
    uri: str
    secret: str = field(repr=False)
    events: Path
    release: Release
    seen: dict[str, float] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        for path in (self._former(), self.events):
            for line in path.read_text().splitlines() if path.is_file() else ():
                found = json.loads(line)
                if found.get("received", 0) > time.time() - OLDEST_S:
                    self.seen[found["delivery"]] = found["received"]

    def routes(self) -> list[Route]:
        return [Route("/champion", self.moved, methods=["POST"])]

    async def moved(self, request: Request) -> Response:
        """202: taken, the release has begun or failed in a way that the file of events tells. 204: nothing to do.
        400, 401, 413: not an event of this webhook."""
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > LARGEST:
                return self._answer(413, "too large", {})
        identity = request.headers.get("x-mlflow-delivery-id", "")
        stamp = request.headers.get("x-mlflow-timestamp", "")
        if not hmac.compare_digest(
            request.headers.get("x-mlflow-signature", "").encode(), self._sign(identity, stamp, body)
        ):
            return self._answer(401, "wrong signature", {})
        known = {"delivery": identity, "received": time.time()}
        if not stamp.isdecimal() or abs(time.time() - int(stamp)) > OLDEST_S:
            return self._answer(400, "too old, or of a clock that is wrong", known)
        self.seen = {one: at for one, at in self.seen.items() if at > time.time() - OLDEST_S}
        if identity in self.seen:
            return self._answer(204, "came before", known)
        self.seen[identity] = time.time()
        try:
            number = self._version(json.loads(body))
        except (ValueError, KeyError, TypeError) as error:
            return self._answer(400, f"not an event of MLflow ({error!r})", known)
        except NothingToDoError as reason:
            return self._answer(204, str(reason), known)
        task = asyncio.create_task(self._act(number, known))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return self._answer(202, "taken", known | {"version": number})

    def _sign(self, identity: str, stamp: str, body: bytes) -> bytes:
        """MLflow's signature (Standard Webhooks): HMAC-SHA256 of id, time and body."""
        signed = f"{identity}.{stamp}.".encode() + body
        return b"v1," + base64.b64encode(hmac.digest(self.secret.encode(), signed, hashlib.sha256))

    def _version(self, event: dict[str, Any]) -> str:
        """The version that became champion; NothingToDoError for any other event."""
        data = event["data"]
        if (event["entity"], event["action"]) != KIND or (data["name"], data["alias"]) != (self.name, tracking.ALIAS):
            raise NothingToDoError("not about our champion")
        return str(data["version"])

    async def _act(self, number: str, known: Mapping[str, Any]) -> None:
        """Release, unless the registry says otherwise; whatever happens is a line of the file of events."""
        async with self.turn:
            try:
                champion = await self._asked(number)
                self.record({**known, "version": number, "outcome": "release begins"})
                await self.release(champion)
                outcome = "released"
            except NothingToDoError as reason:
                outcome = f"nothing done: {reason}"
            except (ExpectedError, httpx.HTTPError, OSError) as error:
                outcome = f"failed: {error}"
            self.record({**known, "version": number, "outcome": outcome})

    async def _asked(self, number: str) -> Champion:
        """The champion by the registry, once no move is under way; NothingToDoError unless it is `number`, judged."""
        deadline = time.monotonic() + SETTLED_S
        while await asyncio.to_thread(tracking.has_unfinished_move, self.name, self.uri):
            if time.monotonic() > deadline:
                raise ChampionError("a move of aliases was cut off: `python -m training.registry status` finishes it")
            await asyncio.sleep(AGAIN_S)
        found = await asyncio.to_thread(tracking.registry_champion, self.name, self.uri)
        if found is None or found.version != number or found.model_sha256 is None:
            raise NothingToDoError(f"the registry's champion is {found.version if found else 'nobody'} now")
        if found.gate not in GATE:
            raise NothingToDoError(
                f"version {number} was moved by hand, not judged: `python -m training.promote --version {number}`"
            )
        return Champion(found.version, found.model_sha256)

    def _former(self) -> Path:
        return self.events.with_suffix(f".former{self.events.suffix}")

    def _answer(self, status: int, outcome: str, known: Mapping[str, Any]) -> Response:
        self.record({**known, "outcome": outcome})
        return Response(status_code=204) if status == 204 else PlainTextResponse(f"{plain(outcome)}\n", status)

    def record(self, event: Mapping[str, Any]) -> None:
        """A line of the file of events, and one of the log. Two files of bounded size are kept, whatever comes."""
        self.events.parent.mkdir(parents=True, exist_ok=True)
        if self.events.is_file() and self.events.stat().st_size > EVENTS_SIZE:
            self.events.replace(self._former())
        with self.events.open("a") as file:
            file.write(json.dumps({"time": now(), "delivery": ""} | dict(event)) + "\n")
        log.info("champion %s: %s", plain(event.get("version", "")), plain(event["outcome"]))


def _by_workflow(repository: Repository) -> Release:
    """Starts release.yml, which pulls and judges for itself."""

    async def start(champion: Champion) -> None:
        payload = {"version": champion.version, "model_sha256": champion.model_sha256}
        for pause in PAUSES_S:
            try:
                return await repository.start(EVENT, payload)
            except httpx.HTTPError as error:
                log.warning("%s did not start the release: %s; again in %g s", repository.dispatches, error, pause)
                await asyncio.sleep(pause)
        return await repository.start(EVENT, payload)

    return start


def by_command(words: list[str]) -> Release:
    """Runs a command of the operator's; nothing of the event is part of it."""

    async def run(champion: Champion) -> None:
        told = {"CHAMPION_VERSION": champion.version, "CHAMPION_SHA256": champion.model_sha256}
        process = await asyncio.create_subprocess_exec(*words, env=os.environ | told)
        if await process.wait():
            raise PromotedError(f"{shlex.join(words)} ended with {process.returncode}")

    return run


def from_environment(environ: Mapping[str, str] = os.environ) -> Champions:
    """PromotedError names the variable that is missing."""
    command = shlex.split(environ.get("RELEASE_COMMAND", ""))
    names = ["WEBHOOK_SECRET_FILE", "MODEL_NAME", "MLFLOW_TRACKING_URI", *(() if command else workflow.NAMES)]
    if missing := [name for name in names if not environ.get(name)]:
        raise PromotedError(f"{', '.join(missing)} must be set: see python -m monitoring.promoted --help")
    return Champions(
        environ["MODEL_NAME"],
        environ["MLFLOW_TRACKING_URI"],
        workflow.token(environ["WEBHOOK_SECRET_FILE"]),
        Path(environ.get("EVENTS_FILE") or "logs/champions.jsonl"),
        by_command(command) if command else _by_workflow(Repository.from_environment(environ)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m monitoring.promoted", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    parser.add_argument("--port", type=int, default=9096, help="default: %(default)s")
    arguments = parser.parse_args()
    app = Starlette(routes=from_environment().routes())
    uvicorn.run(app, host=arguments.host, port=arguments.port, access_log=False)


if __name__ == "__main__":
    run_command(main)
