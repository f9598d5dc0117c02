"""GitHub's `repository_dispatch`: starts a workflow of this project that listens for an event."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from training.common.errors import ExpectedError

NAMES = ("GITHUB_REPOSITORY", "GITHUB_TOKEN_FILE")
TIMEOUT_S = 10.0


class TokenError(ExpectedError):
    """A file holds no token."""


def token(path: str) -> str:
    """The token in a file; TokenError when it is empty, OSError when it cannot be read."""
    found = Path(path).read_text().strip()
    if not found:
        raise TokenError(f"{path} holds no token")
    return found


@dataclass(frozen=True)
class Repository:
    """Where to start workflows, and with which token."""

    dispatches: str
    token: str = field(repr=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Repository:
        """KeyError when a variable of NAMES is missing."""
        api = environ.get("GITHUB_API_URL", "https://api.github.com").rstrip("/")
        return cls(f"{api}/repos/{environ[NAMES[0]]}/dispatches", token(environ[NAMES[1]]))

    async def start(self, event: str, payload: Mapping[str, str]) -> None:
        """Start what listens for `event`; httpx.HTTPError when GitHub does not take it."""
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/vnd.github+json"}
        async with httpx.AsyncClient(timeout=TIMEOUT_S, headers=headers) as client:
            body = {"event_type": event, "client_payload": dict(payload)}
            (await client.post(self.dispatches, json=body)).raise_for_status()
