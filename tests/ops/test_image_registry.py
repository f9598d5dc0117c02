"""k8s/rollout/registry.py against a registry of its own that wants a token."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from k8s.rollout import registry
from k8s.target import DeployError

DIGEST, ARM, CONFIG = (f"sha256:{digit * 64}" for digit in "123")
LABELS = {"model.bento_tag": "m:1"}
CONTENT: dict[str, Any] = {
    "/v2/team/x/manifests/1": {"manifests": [{"digest": ARM}]},
    f"/v2/team/x/manifests/{ARM}": {"config": {"digest": CONFIG}},
    f"/v2/team/x/blobs/{CONFIG}": {"config": {"Labels": LABELS}},
}


class Private(BaseHTTPRequestHandler):
    """Tokens for ada, content for the token."""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        given = self.headers.get("Authorization", "")
        if path == "/token":
            known = given == f"Basic {base64.b64encode(b'ada:secret').decode()}" and "scope=repository" in query
            self._send(200 if known else 403, {"token": "T"})
        elif given != "Bearer T":
            self._send(401, {})
        else:
            self._send(200 if path in CONTENT else 404, CONTENT.get(path, {}))

    def _send(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        realm = f'Bearer realm="http://{self.headers["Host"]}/token",service="r",scope="repository:team/x:pull"'
        self.send_header("WWW-Authenticate", realm)
        self.send_header("Docker-Content-Digest", DIGEST)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), Private) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def sign_in(folder: Path, host: str, password: str) -> None:
    auth = base64.b64encode(f"ada:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def test_a_tag_is_looked_up_with_the_credentials_of_docker_login(host: str, tmp_path: Path) -> None:
    sign_in(tmp_path, host, "secret")
    found = registry.resolve(f"{host}/team/x:1")
    assert (found.reference, found.labels) == (f"{host}/team/x@{DIGEST}", LABELS)


@pytest.mark.parametrize(
    ("password", "tag", "message"),
    [("wrong", "1", "answers 403 for team/x manifests/1; `docker login`"), ("secret", "2", "answers 404 for team/x")],
)
def test_what_the_registry_refuses_is_said(host: str, tmp_path: Path, password: str, tag: str, message: str) -> None:
    sign_in(tmp_path, host, password)
    with pytest.raises(DeployError, match=message):
        registry.resolve(f"{host}/team/x:{tag}")


def test_a_registry_that_is_away_is_named() -> None:
    with pytest.raises(DeployError, match=r"the registry 127\.0\.0\.1:9 does not answer"):
        registry.resolve("127.0.0.1:9/x:1")


@pytest.mark.parametrize(
    ("reference", "name", "tag", "host", "path"),
    [
        ("x", "x", "latest", registry.HUB, "library/x"),
        ("team/x:2", "team/x", "2", registry.HUB, "team/x"),
        ("localhost:5000/x", "localhost:5000/x", "latest", "localhost:5000", "x"),
        ("r.example/a/b:v1", "r.example/a/b", "v1", "r.example", "a/b"),
    ],
)
def test_a_reference_names_its_registry(reference: str, name: str, tag: str, host: str, path: str) -> None:
    repository = registry.Repository.of(name)
    assert registry.split(reference) == (name, tag)
    assert (repository.host, repository.path) == (host, path)
