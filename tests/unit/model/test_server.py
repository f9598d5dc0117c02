"""Logins, certificates and redirects, against small servers of our own; tests/pipeline asks MLflow's."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.authority import Authority
from training.model import server
from training.model.pin import ChampionError
from training.model.server import RegistryRefusedError, RegistryUnreachableError

LOGINS = ("USERNAME", "PASSWORD", "TOKEN", "AUTH", "AWS_SIGV4")
CERTIFICATES = ("INSECURE_TLS", "SERVER_CERT_PATH", "CLIENT_CERT_PATH")
Started = Callable[..., "Asked"]


class Asked(HTTPServer):
    """A server that remembers the headers `Authorization` and the paths, and answers {} or a redirect."""

    def __init__(self, location: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.location = location
        self.logins: list[str | None] = []
        self.paths: list[str] = []
        self.scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}"

    def handle_error(self, *_: object) -> None:
        """Of a handshake that fails."""


class Handler(BaseHTTPRequestHandler):
    server: Asked

    def do_GET(self) -> None:
        self.server.logins.append(self.headers.get("Authorization"))
        self.server.paths.append(self.path.partition("?")[0])
        self.send_response(302 if self.server.location else 200)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No login from outside the test."""
    for name in (*LOGINS, *CERTIFICATES):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    for name in ("NETRC", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def start() -> Iterator[Started]:
    running: list[tuple[Asked, Thread]] = []

    def one(location: str | None = None, tls: ssl.SSLContext | None = None) -> Asked:
        asked = Asked(location, tls)
        thread = Thread(target=asked.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        running.append((asked, thread))
        return asked

    yield one
    for asked, thread in running:
        asked.shutdown()
        asked.server_close()
        thread.join()


def basic(text: str) -> str:
    user, _, password = text.partition(":")
    return server.Login(user, password).headers()["Authorization"]


def test_logs_in_as_mlflow_does(start: Started, monkeypatch: pytest.MonkeyPatch, nobody: Path) -> None:
    """Address before ~/.netrc before variables before the file; half a pair of user and password counts for nothing."""
    asked = start()
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
    server.call(asked.url, "x")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    server.call(asked.url, "x")
    (nobody / ".mlflow").mkdir()
    (nobody / ".mlflow/credentials").write_text("[mlflow]\nmlflow_tracking_password = saved\n")
    server.call(asked.url, "x")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "set")
    server.call(asked.url, "x")
    (nobody / ".netrc").write_text("machine 127.0.0.1 login net password rc\n")
    server.call(asked.url, "x")
    server.call(f"http://a%40b:s%2Fe%3Acret@{asked.address}", "x")
    expected = ["Bearer token", "Bearer token", *map(basic, ("me:saved", "me:set", "net:rc", "a@b:s/e:cret"))]
    assert asked.logins == expected


@pytest.mark.parametrize("end", ["", "/", "/team/mlflow", "/team/mlflow/"])
def test_a_prefix_and_a_final_slash_are_part_of_the_address(start: Started, end: str) -> None:
    asked = start()
    server.call(asked.url + end, "registered-models/get", name="x")
    assert asked.paths == [f"{end.rstrip('/')}/api/2.0/mlflow/registered-models/get"]


def test_a_login_does_not_follow_a_redirect_to_another_server(start: Started) -> None:
    other = start()
    server.call(f"http://me:secret@{start(location=other.url).address}", "x")
    assert other.logins == [None]


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://me:secret@host:5000/path/", "http://host:5000/path"),
        ("http://:secret@host", "http://host"),
        ("http://secret@host", "http://host"),
        ("http://me:a%40secret@[::1]:5000", "http://[::1]:5000"),
        ("http://me:a@secret@host", "http://host"),
        ("postgresql://me:secret@host/db", "postgresql://host/db"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db?user=me"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
    ],
)
def test_the_password_is_lost_in_every_form(uri: str, shown: str) -> None:
    assert server.without_password(uri) == shown


def test_a_password_that_is_not_encoded_is_an_error_that_does_not_show_it() -> None:
    with pytest.raises(ChampionError, match="percent-encode") as caught:
        server.without_password("http://me:se/cret@host")
    assert "cret" not in str(caught.value)
    text = server.scrubbed("GET http://me:a%40b@host failed: a@b, ftp://x:y@z", "http://me:a%40b@host")
    assert text == "GET http://host failed: ***, ftp://z"


def test_a_file_of_credentials_that_cannot_be_read_is_told_without_its_content(nobody: Path) -> None:
    (nobody / ".mlflow").mkdir()
    (nobody / ".mlflow/credentials").write_text("[mlflow]\nmlflow_tracking_password = 50%secret\n")
    with pytest.raises(RegistryRefusedError, match=r"credentials cannot be read .*%%") as caught:
        server.login("http://host")
    assert "secret" not in str(caught.value)


def test_only_a_known_authority_is_trusted(
    start: Started, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = start(tls=authority.server())
    with pytest.raises(RegistryRefusedError, match=r"no trusted connection .*MLFLOW_TRACKING_SERVER_CERT_PATH"):
        server.call(asked.url, "x")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.certificate))
    assert server.call(asked.url, "x") == {}
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority.certificate))
    assert server.call(asked.url, "x") == {}
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    with pytest.raises(RegistryRefusedError, match="both set"):
        server.call(asked.url, "x")
    monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
    assert server.call(asked.url, "x") == {}


def test_a_client_shows_its_certificate(start: Started, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = start(tls=authority.server(demanding=True))
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority.certificate))
    with pytest.raises(RegistryRefusedError, match="MLFLOW_TRACKING_CLIENT_CERT_PATH"):
        server.call(asked.url, "x")
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(authority.client))
    assert server.call(asked.url, "x") == {}
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", "gone.pem")
    with pytest.raises(RegistryRefusedError, match=r"CLIENT_CERT_PATH=gone\.pem cannot be used"):
        server.call(asked.url, "x")


def test_what_only_mlflow_can_do_is_left_to_it(start: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_AWS_SIGV4", "true")
    with pytest.raises(RegistryUnreachableError, match="without MLflow"):
        server.call(start().url, "x")
