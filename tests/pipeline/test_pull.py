"""A registry on a real MLflow server, seen from a machine that trained and from one that only serves."""

from __future__ import annotations

import shutil
import socket
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread

import pytest

from tests.pipeline.acting import FAIR, GOOD, NAME, promoted
from tests.service.server import free_port
from tests.unit.model.test_signing import key_pair
from training import params, register
from training.model import pin as pin_file
from training.model import tracking
from training.model.folder import ModelFolderError
from training.model.pin import ChampionError
from training.model.server import RegistryUnreachableError
from training.registry import __main__ as registry
from training.registry import bento_store, deployments, pull
from training.registry.deployments import Deployment
from training.registry.mlflow_store import Registry, RegistryError

NONE = "nothing may be imported"


@pytest.fixture(scope="module")
def trained(server: str, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The machine that trained: two promotions, the second signed. Its BentoML store is not that of the tests."""
    root = tmp_path_factory.mktemp("trained")
    shutil.copytree(template, root / "project")
    key_pair(root, "key")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root / "project")
        patch.setenv("MLFLOW_TRACKING_URI", server)
        patch.setenv("BENTOML_HOME", str(root / "bentoml"))
        promoted(root / "project", **FAIR)
        settings = Path("params.yaml")
        settings.write_text(settings.read_text().replace("signing_key: null", f"signing_key: {root}/key.pem"))
        promoted(root / "project", **GOOD)
    return root


@pytest.fixture
def clone(server: str, trained: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A second machine: a fresh clone with an empty BentoML store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    (project / "mlflow.db").unlink()
    return project


def stored() -> list[Path]:
    return [path for path in bento_store.store_path().parent.rglob("*") if path.is_file()]


def test_the_champion_arrives_verified_and_pinned(clone: Path, server: str, capsys: pytest.CaptureFixture[str]) -> None:
    registry.main(["pull"])
    pin = pin_file.read()
    assert (pin.mlflow_version, pin.tracking_uri) == ("2", server)
    folder = bento_store.find(pin.bento_tag)
    assert folder is not None
    assert folder.sha256 == pin.model_sha256
    assert bento_store.metadata(pin.bento_tag)["mlflow_run_id"] == pin.run_id
    assert tracking.registry_champion(NAME, server) == tracking.RegistryChampion("2", pin.model_sha256)
    registry.main(["status"])
    assert "agree" in capsys.readouterr().out


def test_the_bytes_are_those_of_the_machine_that_trained(clone: Path, trained: Path) -> None:
    version = pull.pull_champion(Registry(NAME))
    here = bento_store.path_of(version.bento_tag)
    there = trained / "bentoml/models" / version.bento_tag.replace(":", "/")
    for name in ("model.onnx", "model_card.json", "SHA256SUMS", "model.sig"):
        assert (here / name).read_bytes() == (there / name).read_bytes()


def test_a_second_pull_downloads_nothing(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull.pull_champion(Registry(NAME))
    monkeypatch.setattr(Registry, "download_folder", lambda *_: pytest.fail("downloaded again"))
    pull.pull_champion(Registry(NAME))


def test_a_rerun_on_the_second_machine_needs_no_mlflow(clone: Path, trained: Path) -> None:
    """What `make run` asks first works over HTTP too."""
    version = pull.pull_champion(Registry(NAME))
    folder = bento_store.find(version.bento_tag)
    assert folder is not None
    assert register.registered(folder, NAME, None) == register.Record.of(version)
    assert tracking.registered_version(NAME, "0" * 64, Registry(NAME).uri) is None
    assert tracking.registered_version("other", version.sha256, Registry(NAME).uri) is None


def test_a_deployment_noted_at_the_registry_is_told_on_every_machine(
    clone: Path, server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    version = pull.pull_champion(Registry(NAME))
    for number in range(1, 8):  # of one target; the registry keeps the newest five
        result = "deployed" if number == 7 else "failed: " + "the smoke tests failed " * 40
        made = Deployment(
            f"2026-01-0{number}",
            "k8s/production",
            "b:1",
            version.bento_tag,
            "r/i",
            "sha256:" + "a" * 64,
            "2",
            "ci",
            result,
        )
        deployments.share(made, NAME, server)
    tags = Registry(NAME).tags()
    assert [one.time for one in deployments.shared(tags)] == [f"2026-01-0{number}" for number in range(3, 8)]
    assert not deployments.DEPLOYMENTS_FILE.exists()
    registry.main(["status"])
    told = capsys.readouterr().out
    assert all(word in told for word in ("k8s/production", "2026-01-07", "ci", "sha256:aaaa", "deployed"))
    assert deployments.tags_in_use(deployments.known(tags)) == {version.bento_tag}
    with pytest.raises(RegistryUnreachableError, match="no registered model other"):
        deployments.share(made, "other", server)
    with pytest.raises(RegistryUnreachableError, match="cannot be asked"):
        deployments.share(made, NAME, f"http://127.0.0.1:{free_port()}")


def test_the_pin_is_refused_when_the_server_has_another_champion(clone: Path) -> None:
    here = Registry(NAME)
    pull.pull_champion(here)
    here.set_alias("champion", "1")
    try:
        with pytest.raises(ChampionError, match=r"pins version 2 .* is version 1"):
            tracking.check_against_registry(pin_file.read(), clone)
        pull.pull_champion(here)
        assert pin_file.read().mlflow_version == "1"
    finally:
        here.set_alias("champion", "2")


@pytest.mark.parametrize("signed", [True, False])
def test_a_signature_is_verified_where_a_key_is_configured(
    clone: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, signed: bool
) -> None:
    monkeypatch.setenv("MODEL_PUBLIC_KEY", str(trained / "key.pub.pem"))
    here = Registry(NAME)
    if signed:
        pull.fetch(here, here.version("2"))
    else:
        with pytest.raises(ModelFolderError, match="is not signed, but MODEL_PUBLIC_KEY requires it"):
            pull.fetch(here, here.version("1"))
        assert stored() == [], NONE


def artifact(trained: Path, number: str) -> Path:
    """model.onnx of a version in the artifact store of the server."""
    found = (trained.parent).glob(f"server*/artifacts/**/{Registry(NAME).version(number).run_id}/**/model.onnx")
    return next(iter(found))


def test_a_flipped_byte_is_refused(clone: Path, trained: Path) -> None:
    path = artifact(trained, "2")
    good = path.read_bytes()
    path.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    try:
        with pytest.raises(ModelFolderError, match=r"model\.onnx was changed: its SHA-256"):
            pull.pull_champion(Registry(NAME))
    finally:
        path.write_bytes(good)
    assert stored() == [], NONE
    assert not pin_file.PIN_FILE.exists()


def test_an_exchanged_model_is_refused(clone: Path, trained: Path) -> None:
    """A whole folder with good checksums, but of another version."""
    target, other = artifact(trained, "2").parent, artifact(trained, "1").parent
    kept = shutil.copytree(target, clone / "kept")
    shutil.rmtree(target)
    shutil.copytree(other, target)
    try:
        with pytest.raises(ModelFolderError, match="the registry's artifacts were replaced"):
            pull.pull_champion(Registry(NAME))
    finally:
        shutil.rmtree(target)
        shutil.copytree(kept, target)
    assert stored() == [], NONE


def test_missing_artifacts_are_named(clone: Path, trained: Path) -> None:
    folder = artifact(trained, "2").parent
    away = folder.rename(folder.with_name("away"))
    try:
        with pytest.raises(RegistryError, match="the artifacts of version 2"):
            pull.pull_champion(Registry(NAME))
    finally:
        away.rename(folder)
    assert stored() == [], NONE


def test_a_missing_model_and_a_missing_alias_are_two_errors(clone: Path) -> None:
    with pytest.raises(RegistryError, match="has no registered model foxes"):
        pull.pull_champion(Registry("foxes"))
    empty = Registry("empty")
    empty.create()
    with pytest.raises(RegistryError, match="has no alias champion"):
        pull.pull_champion(empty)


@pytest.mark.timeout(60)  # MLflow by itself tries again for minutes
def test_a_server_that_is_down_is_told_without_further_tries(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RegistryError, match=r"cannot be reached .*MLFLOW_TRACKING_URI"):
        Registry(NAME)


@pytest.mark.timeout(60)
def test_a_server_that_does_not_answer_is_asked_once(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        with pytest.raises(RegistryError, match=r"does not answer in 1 s: MLFLOW_HTTP_REQUEST_TIMEOUT sets more$"):
            Registry(NAME)
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_another_web_server_is_no_registry(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    thread = Thread(target=other.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{other.server_port}")
    try:
        with pytest.raises(RegistryError, match="is not an MLflow server: it answers 404") as caught:
            Registry(NAME)
    finally:
        other.shutdown()
        other.server_close()
        thread.join()
    assert "secret" not in str(caught.value)


def test_the_gate_and_rollback_work_on_the_server(clone: Path) -> None:
    """A candidate from the second machine is judged against the champion, which is pulled for that."""
    outcome = promoted(clone, skill=0.15, seed=1)
    assert outcome.kept_out
    here = Registry(NAME)
    assert here.aliases()["champion"] == "2"
    assert registry.rollback(here, "test").startswith("version 1")
    assert pin_file.read().mlflow_version == "1"
    assert params.load().register_.name == here.name
