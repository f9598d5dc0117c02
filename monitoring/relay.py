"""Alertmanager's drift alert starts the retrain workflow: `python -m monitoring.relay`.

GitHub takes a `repository_dispatch` only in its own shape, which no webhook of Alertmanager has; this passes one on as
the other. It holds the only token that may start the workflow, and takes only requests that carry its own token.

    GITHUB_REPOSITORY   owner/name
    GITHUB_TOKEN_FILE   file of a fine-grained token for that repository: contents, read and write
    GITHUB_API_URL      https://api.github.com, unless it is an enterprise server
    RELAY_TOKEN_FILE    file of what Alertmanager must send as bearer token
    WEBHOOK_SECRET_FILE and what else `python -m monitoring.promoted --help` says: takes MLflow's webhook too
"""

from __future__ import annotations

import argparse
import hmac
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from monitoring import promoted, workflow
from monitoring.workflow import Repository
from training.common.command import run_command
from training.common.errors import ExpectedError

EVENT = "drift"  # `on: repository_dispatch: types:` of .github/workflows/retrain.yml
log = logging.getLogger("uvicorn.error")


class RelayError(ExpectedError):
    """The environment does not say where to pass alerts on, or with which tokens."""


@dataclass(frozen=True)
class Relay:
    """Where to pass an alert on, and the tokens of both sides."""

    repository: Repository
    own_token: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Relay:
        """RelayError names the variable that is missing; OSError the file."""
        names = ("GITHUB_REPOSITORY", "GITHUB_TOKEN_FILE", "RELAY_TOKEN_FILE")
        missing = [name for name in names if not environ.get(name)]
        if missing:
            raise RelayError(f"{', '.join(missing)} must be set: see python -m monitoring.relay --help")
        return cls(Repository.from_environment(environ), workflow.token(environ["RELAY_TOKEN_FILE"]))

    async def retrain(self, request: Request) -> Response:
        """202: passed on. 204: the alert is over. 502: GitHub did not take it, Alertmanager tries again."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self.own_token.encode()):
            return PlainTextResponse("wrong token\n", 401)
        try:
            found = payload(await request.json())
        except (ValueError, KeyError, TypeError) as error:
            return PlainTextResponse(f"not a notification of Alertmanager: {error!r}\n", 400)
        return await self._dispatch(found) if found else Response(status_code=204)

    async def _dispatch(self, found: dict[str, str]) -> Response:
        try:
            await self.repository.start(EVENT, found)
        except httpx.HTTPError as error:
            log.error("%s did not start the retrain workflow: %s", self.repository.dispatches, error)
            return PlainTextResponse(f"GitHub did not take it: {error}\n", 502)
        log.info("retrain workflow started for version %s", found["version"])
        return PlainTextResponse("started\n", 202)

    def app(self) -> Starlette:
        promoted_too = promoted.from_environment().routes() if os.environ.get("WEBHOOK_SECRET_FILE") else []
        return Starlette(routes=[Route("/retrain", self.retrain, methods=["POST"]), *promoted_too])


def payload(notification: dict[str, Any]) -> dict[str, str] | None:
    """What the workflow is told of the first alert that fires; None when none does."""
    firing = [alert for alert in notification["alerts"] if alert["status"] == "firing"]
    if not firing:
        return None
    first = firing[0]
    return {
        "version": first["labels"]["version"],
        "since": first["startsAt"],
        "reason": first["annotations"]["summary"],
    }


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
