"""What a tag means in an image registry, asked over HTTP: whoever deploys needs no Docker.

Protocol: OCI Distribution Specification 1.1; tokens as Docker's registries give them (RFC 6750). Credentials are those
that `docker login` left in ~/.docker/config.json (DOCKER_CONFIG names another folder); its helpers are not asked.
"""

from __future__ import annotations

import base64
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from k8s.target import HTTP_TIMEOUT_S, DeployError, Image

HUB = "registry-1.docker.io"
LOOPBACK = re.compile(r"(localhost|127\.[\d.]+|\[::1\])(:\d+)?")
LISTS = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
ONE = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")


def resolve(reference: str) -> Image:
    """The image that NAME:TAG (or NAME, for latest) means now, by digest, with its labels; DeployError without one."""
    name, tag = split(reference)
    repository = Repository.of(name)
    answer = repository.get(f"manifests/{tag}")
    digest = answer.headers.get("Docker-Content-Digest", "")
    if not digest:
        raise DeployError(
            f"the registry {repository.host} does not return the digest of {reference}: name it by digest"
        )
    return Image(name, digest, f"{name}@{digest}", repository.labels(json.load(answer)))


def split(reference: str) -> tuple[str, str]:
    """Name and tag; a colon before the last slash is a port."""
    folder, slash, last = reference.rpartition("/")
    last, _, tag = last.partition(":")
    return f"{folder}{slash}{last}", tag or "latest"


@dataclass
class Repository:
    """One name in a registry."""

    host: str
    path: str
    authorization: str = ""

    @classmethod
    def of(cls, name: str) -> Repository:
        host, _, path = name.partition("/")
        if path and ("." in host or ":" in host or host == "localhost"):
            return cls(host, path)
        return cls(HUB, name if path else f"library/{name}")

    def get(self, what: str) -> HTTPResponse:
        """The answer to a GET; signs in when the registry asks for it. DeployError when there is none."""
        try:
            try:
                return self._open(what)
            except urllib.error.HTTPError as error:
                if error.code != 401:
                    raise
                self.authorization = self._sign_in(error.headers.get("WWW-Authenticate", ""))
                return self._open(what)
        except urllib.error.HTTPError as error:
            mend = "; `docker login` writes credentials" if error.code in (401, 403) else ""
            raise DeployError(f"the registry {self.host} answers {error.code} for {self.path} {what}{mend}") from None
        except (OSError, ValueError) as error:
            raise DeployError(f"the registry {self.host} does not answer: {error}") from None

    def labels(self, manifest: dict[str, Any]) -> dict[str, str]:
        """Of the image, or of the first in a list of images for several processors."""
        if "manifests" in manifest:
            manifest = json.load(self.get(f"manifests/{manifest['manifests'][0]['digest']}"))
        config = json.load(self.get(f"blobs/{manifest['config']['digest']}"))
        return dict(config.get("config", {}).get("Labels") or {})

    def _open(self, what: str) -> HTTPResponse:
        scheme = "http" if LOOPBACK.fullmatch(self.host) else "https"
        headers = {"Accept": ", ".join((*LISTS, *ONE))}
        request = urllib.request.Request(f"{scheme}://{self.host}/v2/{self.path}/{what}", headers=headers)
        if self.authorization:  # blobs may lie elsewhere, and that host is not to learn it
            request.add_unredirected_header("Authorization", self.authorization)
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S)
        return answer

    def _sign_in(self, challenge: str) -> str:
        """The header that answers a 401."""
        kind, _, rest = challenge.partition(" ")
        basic = credentials(self.host)
        if kind.lower() == "basic":
            return f"Basic {basic}"
        asked = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        if kind.lower() != "bearer" or not asked.get("realm"):
            raise DeployError(
                f"the registry {self.host} asks to sign in by {kind or 'nothing'}: name the image by digest"
            )
        query = {key: asked[key] for key in ("service", "scope") if key in asked}
        request = urllib.request.Request(f"{asked['realm']}?{urllib.parse.urlencode(query)}")
        if basic:
            request.add_unredirected_header("Authorization", f"Basic {basic}")
        with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S) as answer:
            values = json.load(answer)
        return f"Bearer {values.get('token') or values['access_token']}"


def credentials(host: str) -> str:
    """Base64 of USER:PASSWORD that `docker login` left for a registry; empty without."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    path = folder / "config.json"
    if not path.is_file():
        return ""
    known = json.loads(path.read_text()).get("auths", {})
    names = (host, f"https://{host}", "https://index.docker.io/v1/" if host == HUB else host)
    found: dict[str, str] = next((known[name] for name in names if name in known), {})
    if "auth" in found:
        return str(found["auth"])
    if "username" in found:
        return base64.b64encode(f"{found['username']}:{found.get('password', '')}".encode()).decode()
    return ""
