"""MLflow as people run it: behind a login, TLS and a prefix, with its own login, on PostgreSQL."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import mlflow
import pytest
import requests
import uvicorn
from starlette.applications import Starlette

from monitoring.promoted import Champions, by_command
from tests.authority import Authority
from tests.pipeline.acting import FAIR, GOOD, NAME, promoted
from tests.pipeline.serving import in_front_of, mlflow_server
from tests.service.server import free_port
from tests.tiny import tiny_export
from training import params
from training.model import pin as pin_file
from training.model import tracking
from training.model.pin import ChampionError
from training.model.server import Login, RegistryRefusedError
from training.register import register
from training.registry import __main__ as registry
from training.registry import bento_store
from training.registry.mlflow_store import Registry, RegistryError

PASSWORD = "p@ss/w%rd:123456"
ENCODED = "p%40ss%2Fw%25rd%3A123456"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No login from outside the test, and what a command puts into the environment is gone after it."""
    for name in ("USERNAME", "PASSWORD", "TOKEN", "SERVER_CERT_PATH"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}")
    monkeypatch.setenv("HOME", str(tmp_path))


def journey(project: Path, uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Register, promote twice, status, roll back, and pull what is champion then into an empty store."""
    promoted(project, **FAIR)
    promoted(project, **GOOD)
    registry.main(["status"])
    assert "agree" in capsys.readouterr().out
    tracking.check_against_registry(pin_file.read(), project)
    registry.main(["rollback", "--reason", "a test"])
    with pytest.raises(ChampionError, match="pins version 2"):
        tracking.check_against_registry(pin_file.Champion(**vars(pin_file.read()) | {"mlflow_version": "2"}), project)
    shutil.rmtree(bento_store.store_path())
    registry.main(["pull"])
    pin = pin_file.read()
    assert pin.mlflow_version == "1"
    assert pin.tracking_uri == uri
    assert bento_store.is_whole(pin.bento_tag)


def test_behind_a_login_tls_and_a_prefix(
    project: Path,
    tmp_path: Path,
    server: str,
    server_folder: Path,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A proxy asks for all three; the login comes from the address, and is written down nowhere. Meanwhile MLflow's own
    webhook releases each champion: promoted, promoted, rolled back to."""
    settings = Path("params.yaml")  # the server has a model of the other name for other tests
    settings.write_text(settings.read_text().replace(f"name: {NAME}", "name: behind"))
    with in_front_of(server, Login("me", PASSWORD).headers()["Authorization"], authority) as front:
        address = front.replace("https://", f"https://me:{ENCODED}@") + "/"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        refused(project, "certificate", RegistryRefusedError)
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority.certificate))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address.replace(ENCODED, "wrong"))
        refused(project, r"\(401\)", RegistryRefusedError)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with released_by_webhook(tmp_path, "behind", server, address) as released:
            journey(project, front, capsys)
            assert wait_for(released, ends_with="1")[0] == "1"
            assert "2" in released.read_text()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"https://me:{ENCODED}@127.0.0.1:{free_port()}")
    refused(project, "cannot be (reached|asked)", None)
    kept = [*project.glob("models/**/*.json"), *server_folder.glob("artifacts/**/*.*"), server_folder / "mlflow.db"]
    assert len(kept) > 10
    for path in kept:
        text = path.read_bytes()
        assert PASSWORD.encode() not in text, path
        assert ENCODED.encode() not in text, path


@contextmanager
def released_by_webhook(folder: Path, name: str, server: str, registry: str) -> Iterator[Path]:
    """`monitoring.promoted` on a port of its own, told by MLflow; it releases by a line in the file given."""
    released, program = folder / "released", folder / "release.py"
    program.write_text(f"import os; open({str(released)!r}, 'a').write(os.environ['CHAMPION_VERSION'])")
    told = by_command([sys.executable, str(program)])
    champions = Champions(name, registry, "of the webhook", folder / "champions.jsonl", told)
    port = free_port()
    config = uvicorn.Config(Starlette(routes=champions.routes()), port=port, log_level="warning")
    relay = uvicorn.Server(config)
    thread = Thread(target=relay.run)
    thread.start()
    mlflow.MlflowClient(server, server).create_webhook(
        "release", f"http://127.0.0.1:{port}/champion", ["model_version_alias.created"], secret="of the webhook"
    )
    try:
        yield released
    finally:
        relay.should_exit = True
        thread.join(20)


def wait_for(path: Path, ends_with: str) -> str:
    """The text of a file, once it has more than that end."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if path.is_file() and len(text := path.read_text()) > 1 and text.endswith(ends_with):
            return text
        time.sleep(0.05)
    raise AssertionError(f"{path.name}: {path.read_text() if path.is_file() else 'nothing was released'}")


def refused(project: Path, words: str, at_start: type[ChampionError] | None) -> None:
    """A command ends with these words and without the password; the start of a service does, or only logs them."""
    with pytest.raises(RegistryError, match=words) as caught:
        Registry(NAME)
    assert "\n" not in str(caught.value)
    assert not any(secret in str(caught.value) for secret in (PASSWORD, ENCODED, "wrong"))
    pin = pin_file.Champion(NAME, f"{NAME}:{'a' * 16}", "1", "r" * 32, "a" * 64)
    if at_start is None:
        tracking.check_against_registry(pin, project)
    else:
        with pytest.raises(at_start, match=words):
            tracking.check_against_registry(pin, project)


@pytest.mark.needs("mlflow-auth")
def test_mlflows_own_login(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`mlflow server --app-name basic-auth`; the login comes from ~/.mlflow/credentials."""
    quick = "auth_cache_ttl_seconds = 600"  # else each request hashes the password for half a second
    stored = "default_permission = READ\ndatabase_uri = sqlite:///basic_auth.db\nadmin_username = admin"
    (tmp_path / "auth.ini").write_text(f"[mlflow]\n{stored}\n{quick}\n")
    admin = {"MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD, "MLFLOW_FLASK_SERVER_SECRET_KEY": "a test"}
    admin |= {"MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "auth.ini")}
    with mlflow_server(project, "--app-name", "basic-auth", environment=admin) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        refused(project, r"\(401\)", RegistryRefusedError)
        (tmp_path / ".mlflow").mkdir()
        saved = f"mlflow_tracking_username = admin\nmlflow_tracking_password = {PASSWORD.replace('%', '%%')}\n"
        (tmp_path / ".mlflow/credentials").write_text(f"[mlflow]\n{saved}")
        journey(project, url, capsys)


@contextmanager
def postgresql() -> Iterator[str]:
    """The address of a database of its own, on a free port; the server runs as another user where we are root."""
    user = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="postgresql-") as root:
        os.chown(root, user.pw_uid, user.pw_gid)

        def run(*words: str) -> None:
            done = subprocess.run(words, cwd=root, user=user.pw_uid, group=user.pw_gid, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr

        run("initdb", "-D", f"{root}/data", "-U", "me", "-A", "trust", "--no-sync")
        options = f"-p {port} -h 127.0.0.1 -k {root} -F"
        run("pg_ctl", "-D", f"{root}/data", "-w", "-l", f"{root}/log", "-o", options, "start")
        try:
            yield f"postgresql://me:secret@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-D", f"{root}/data", "-m", "immediate", "stop")


@pytest.mark.needs("postgresql")
def test_two_promotes_at_once_on_postgresql(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two machines: one becomes champion, the other previous or kept out, and neither leaves a lock or a journal."""
    with postgresql() as backend, mlflow_server(project, backend=backend) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        other = shutil.copytree(project, tmp_path / "other")
        for folder, how in ((project, FAIR), (other, GOOD)):
            monkeypatch.chdir(folder)
            register(tiny_export(folder, **how), params.load().register_)
        command = [sys.executable, "-m", "training.promote"]
        environment = os.environ | {"PYTHONPATH": str(Path(registry.__file__).parents[2])}
        both = [
            subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            for folder in (project, other)
        ]
        said = [process.communicate(timeout=120)[0].decode() for process in both]
        here = Registry(NAME)
        assert here.aliases()["champion"] == "2", said
        assert here.version("2").tags["gate"] == "pass"
        assert here.tags() == {}
        assert both[1].returncode == 0, said
        monkeypatch.setenv("MLFLOW_TRACKING_URI", backend)
        direct = Registry(NAME)
        assert direct.aliases() == here.aliases()
        assert "secret" not in direct.where


@contextmanager
def s3(folder: Path) -> Iterator[str]:
    """The address of an object store in memory that has the bucket `models`."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "s3.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                try:
                    requests.put(f"http://127.0.0.1:{port}/models", timeout=5).raise_for_status()
                    break
                except requests.ConnectionError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.mark.needs("moto")
def test_artifacts_in_an_object_store(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow's server keeps them in S3; the clients need neither its address nor its keys."""
    with s3(tmp_path) as store:
        keys = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        place = ("--artifacts-destination", "s3://models/mlflow")
        with mlflow_server(project, *place, environment=keys | {"MLFLOW_S3_ENDPOINT_URL": store}) as url:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
            journey(project, url, capsys)
        assert "model.onnx" in requests.get(f"{store}/models?list-type=2", timeout=5).text
    assert not (project / "artifacts").exists()
