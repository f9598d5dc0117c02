from __future__ import annotations

import json
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.drawing import read_files
from tests.pipeline.acting import FAIR, GOOD, NAME, POOR, aliases, promoted, registered
from tests.pipeline.dying import deaths_from_here, state
from tests.tiny import tiny_picture
from training.common.files import file_sha256
from training.model import pin, tracking
from training.model.classifier import Classifier
from training.params import ParamsError
from training.registry import __main__ as registry
from training.registry import bento_store, deployments, provenance, pull, status
from training.registry.deployments import Deployment
from training.registry.mlflow_store import Registry, RegistryError

Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """The command as typed: its exit code and what it printed."""

    def run(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        try:
            registry.main(words)
        except SystemExit as end:
            return int(end.code or 0), capsys.readouterr().out
        return 0, capsys.readouterr().out

    return run


def answers() -> bytes:
    """What a service that reads the pin would answer, bit for bit."""
    folder = bento_store.find(pin.read().bento_tag)
    assert folder is not None
    return Classifier(folder).predict_bytes([tiny_picture(label, 7) for label in (0, 1)]).tobytes()


def test_status_of_a_healthy_registry(two: Path, command: Command) -> None:
    code, text = command("status")
    assert code == 0
    rows = {line.split()[0]: line.split()[1:4] for line in text.splitlines()[1:4]}
    assert rows["champion"] == ["2", pin.read().bento_tag, "yes"]
    assert rows["previous"][0] == "1"
    assert rows["challenger"][0] == "-"
    assert "\n.cache: 0.0 GB of at most 20" in text


def test_show_fetches_the_provenance_verified(two: Path, command: Command, tmp_path: Path) -> None:
    code, text = command("show", "champion", "--provenance", str(tmp_path / "out"))
    assert code == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"SHA256SUMS", "croissant.json", "mlbom.cdx.json", "statement.json"}
    assert all(f"{file_sha256(tmp_path / 'out' / name)}  " in text for name in names)
    store = Registry(NAME)
    first, second = store.version("1"), store.version("2")
    folder = pull.fetch(store, first)
    with pytest.raises(RegistryError, match="is about another model"):
        provenance.fetch(store, replace(first, run_id=second.run_id), folder, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_version_of_a_former_release_gets_its_provenance_now(two: Path, tmp_path: Path) -> None:
    store = Registry(NAME)
    version = store.version("2")
    folder = pull.fetch(store, version)
    provenance.fetch(store, version, folder, tmp_path / "kept")
    [filed] = two.glob(f"mlruns/*/{version.run_id}/artifacts/provenance")
    shutil.rmtree(filed)
    provenance.fetch(store, version, folder, tmp_path / "made")
    assert read_files(tmp_path / "made") == read_files(tmp_path / "kept")


def test_a_version_whose_tags_were_altered_reaches_nothing(two: Path, command: Command) -> None:
    """Anyone who may write to the registry may write such a tag: it names no path, and steers no terminal."""
    store = Registry(NAME)
    store.tag_version("2", {"bento_tag": "x:../../project/data", "git_commit": "\x1b[2J"})
    code, text = command("status")
    assert code == 1
    assert "its tags were altered" in text
    with pytest.raises(RegistryError, match="its tags were altered"):
        command("pull")
    code, text = command("list")
    assert r"\x1b[2J" in text
    assert "\x1b" not in text


def test_a_name_that_fits_nowhere_is_refused_before_the_registry_is_asked(command: Command) -> None:
    with pytest.raises(ParamsError, match=r"^--name: name: .* at most 63 .*found 'aaaa"):
        command("--name", "a" * 64, "list")


def break_pin() -> None:
    pin.write(pin.Champion(**{**vars(pin.read()), "mlflow_version": "1"}))


def lose_pin() -> None:
    pin.PIN_FILE.unlink()


def lose_model() -> None:
    bento_store.delete(pin.read().bento_tag)


def change_model() -> None:
    card = bento_store.path_of(pin.read().bento_tag) / "model_card.json"
    card.write_text(card.read_text() + " ")


def change_metadata() -> None:
    description = bento_store.path_of(pin.read().bento_tag) / "model.yaml"
    description.write_text(description.read_text().replace(": '2'", ": '7'"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (break_pin, "mlflow_version is 1, the registry says 2"),
        (lose_pin, "champion.json is missing"),
        (lose_model, "has no cats-vs-dogs:"),
        (change_model, "model_card.json was changed"),
        (change_metadata, "records another run or version than MLflow"),
    ],
)
def test_status_flags_a_disagreement_and_pull_mends_it(
    two: Path, command: Command, damage: Callable[[], None], words: str
) -> None:
    damage()
    code, text = command("status")
    assert code == 1
    assert "DISAGREEMENT" in text
    assert words in text
    code, text = command("status", "--json")
    assert code == 1
    assert words in json.loads(text)["problems"][0]
    assert command("pull")[0] == 0
    assert command("status")[0] == 0


def test_status_without_a_champion(project: Path, command: Command) -> None:
    code, text = command("status")
    assert (code, "has no champion yet: run `make run`" in text) == (1, True)


class Health(BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Health)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_status_asks_the_running_service(two: Path, command: Command, service: str) -> None:
    Health.body = json.dumps({"model": {"bento_tag": pin.read().bento_tag}}).encode()
    code, text = command("status", "--url", service)
    assert (code, f"at {service}" in text) == (0, True)
    Health.body = json.dumps({"model": {"bento_tag": "cats-vs-dogs:old"}}).encode()
    code, text = command("status", "--url", service)
    assert (code, "serves cats-vs-dogs:old, the champion is" in text) == (1, True)
    Health.body = b"<html>"
    with pytest.raises(RegistryError, match="does not say which model it serves"):
        command("status", "--url", service)


def test_list_shows_alias_gate_and_lineage(two: Path, command: Command) -> None:
    registered(two, **POOR)
    lines = command("list")[1].splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["3", "challenger", "not"],
        ["2", "champion", "pass"],
        ["1", "previous", "pass"],
    ]


@pytest.mark.parametrize("by", ["number", "alias", "tag", "run", "hash"])
def test_show_finds_a_version_by_any_of_its_names(two: Path, command: Command, by: str) -> None:
    version = Registry(NAME).version("2")
    names = {"number": "2", "alias": "champion", "tag": version.bento_tag, "run": version.run_id}
    code, text = command("show", names.get(by, version.sha256[:12]))
    assert code == 0
    assert f'"run_id": "{version.run_id}"' in text
    assert '"architecture": "tiny"' in text


@pytest.mark.parametrize("name", ["9", "latest", "cats-vs-dogs:none", "ab"])
def test_a_version_that_is_not_there_is_named(two: Path, command: Command, name: str) -> None:
    with pytest.raises(RegistryError, match=f"no version is '{name}'"):
        command("show", name)


def test_compare_pairs_the_answers_and_draws_what_they_disagree_on(two: Path, command: Command) -> None:
    code, text = command("compare", "previous", "champion", "--sheet", "sheet.png")
    found = dict(line.rsplit(maxsplit=1) for line in text.splitlines() if line.startswith(("both", "only")))
    counts = {key.strip(): int(value) for key, value in found.items()}
    assert sum(counts.values()) == 100
    assert counts["only B right"] - counts["only A right"] == 12  # 89 % against 77 %
    assert code == 0
    sheet = np.asarray(Image.open("sheet.png"))
    assert sheet.shape[1] == 8 * 128
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 100
    same = json.loads(command("compare", "1", "1", "--sheet", "none.png", "--json")[1])
    assert (same["differing"], same["pictures"], same["only_a"], same["sheet"]) == (0, 100, 0, None)
    assert same["versions"][0] == same["versions"][1]
    assert not Path("none.png").exists()


def test_rollback_serves_bit_for_bit_the_former_answers(project: Path, command: Command) -> None:
    promoted(project, **FAIR)
    former = answers()
    promoted(project, **GOOD)
    assert answers() != former
    code, text = command("rollback", "--reason", "complaints about night pictures")
    assert (code, "version 1" in text) == (0, True)
    assert answers() == former
    assert aliases() == {"champion": "1", "challenger": "2"}
    assert "complaints about night pictures" in Registry(NAME).version("2").tags["rolled_back"]
    assert command("status")[0] == 0


def test_what_was_rolled_back_does_not_come_back_by_itself(two: Path, command: Command) -> None:
    command("rollback", "--reason", "complaints")
    outcome = promoted(two, **GOOD)
    assert outcome.kept_out
    assert "not rolled back" in outcome.sentence()
    assert promoted(two, force="the cause is mended", **GOOD).sentence().startswith("promoted by force")
    assert aliases() == {"champion": "2", "previous": "1"}


def test_rollback_brings_a_lost_model_back_first(two: Path, command: Command) -> None:
    bento_store.delete(Registry(NAME).version("1").bento_tag)
    command("rollback", "--reason", "test")
    assert pin.read().mlflow_version == "1"
    assert answers()


def test_rollback_needs_a_former_champion_and_a_reason(project: Path, command: Command) -> None:
    promoted(project, **FAIR)
    with pytest.raises(RegistryError, match="no previous champion"):
        command("rollback", "--reason", "test")
    assert command("rollback")[0] == 2


def test_rollback_killed_before_any_change_is_finished_by_the_next_command(two: Path) -> None:
    for _ in deaths_from_here("registry", "rollback", "--reason", "test", again=("list",)):
        left = state()
        assert tracking.JOURNAL_TAG not in left.marks
        assert left.aliases in ({"champion": "1", "challenger": "2"}, {"champion": "2", "previous": "1"})
        assert pin.read().mlflow_version == left.aliases["champion"]


def test_trace_leads_from_an_answer_to_pictures_and_commit(two: Path, command: Command) -> None:
    version = Registry(NAME).version("2")
    model = {
        "name": NAME,
        "version": "2",
        "bento_tag": version.bento_tag,
        "run_id": version.run_id,
        "data_hash": version.tags["data_hash"],
        "git_commit": version.tags["git_commit"],
    }
    Path("answer.json").write_text(json.dumps({"label": "cat", "model": model}))
    texts = {
        command("trace", word)[1]
        for word in ("answer.json", json.dumps({"model": model}), json.dumps(model), "2", version.bento_tag)
    }
    assert len(texts) == 1
    text = texts.pop()
    for word in (
        f"git checkout {version.tags['git_commit']}",
        f"mlflow artifacts download --run-id {version.run_id}",
        f"{version.tags['data_hash']} = SHA-256 of the artifact lineage/manifest.csv",
        "train.architecture = tiny",
        "accuracy = 0.89",
    ):
        assert word in text


def test_trace_refuses_an_altered_answer(two: Path, command: Command) -> None:
    version = Registry(NAME).version("2")
    with pytest.raises(RegistryError, match="the answer says data_hash beef"):
        command("trace", json.dumps({"model": {"run_id": version.run_id, "data_hash": "beef"}}))
    with pytest.raises(RegistryError, match="names no model"):
        command("trace", '{"label": "cat"}')


def test_gc_deletes_from_both_stores_what_nobody_names(two: Path, command: Command) -> None:
    tags = [registered(two, skill=skill, seed=7).bento_tag for skill in (0.5, 0.6, 0.7)]
    deployed = {"time": "t", "target": "k8s", "bento": "b:1", "model": tags[0], "image": "i", "digest": "sha256:1"}
    Path("models/deployments.jsonl").write_text(json.dumps(deployed) + "\n")
    code, text = command("gc", "--keep", "1")
    assert (code, "would delete version 4" in text, "dry run" in text) == (0, True, True)
    assert len(Registry(NAME).versions()) == 5
    assert "deleted version 4" in command("gc", "--keep", "1", "--yes")[1]
    left = Registry(NAME).versions()
    assert [version.number for version in left] == ["5", "3", "2", "1"]  # newest, deployed, champion, previous
    assert [bento_store.is_whole(tag) for tag in tags] == [True, False, True]
    assert command("gc", "--keep", "1", "--yes")[1] == "nothing to delete\n"
    assert command("gc", "--keep", "0")[0] == 2


def test_status_tells_the_last_deployment_of_every_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert status.last_of_each(deployments.read()) == []
    digest = "sha256:" + "1" * 64
    for target, version, result in (
        ("k8s/x", "1", "deployed"),
        ("docker/x", "1", "deployed"),
        ("k8s/x", "2", "failed: y"),
    ):
        deployments.append(Deployment("t", target, "b", f"m:{version}", "i", digest, version, "ada", result))
    head, *rows = status.last_of_each(deployments.read())
    assert head[:3] == ("target", "deployed", "by")
    assert rows == [
        ("k8s/x", "t", "ada", "2", "m:2", digest[:19], "failed: y"),
        ("docker/x", "t", "ada", "1", "m:1", digest[:19], "deployed"),
    ]


def test_what_gc_deleted_can_be_registered_again(two: Path, command: Command) -> None:
    first = registered(two, **POOR)
    registered(two, skill=0.5, seed=7)
    command("gc", "--keep", "1", "--yes")
    again = registered(two, **POOR)
    assert again.run_id == first.run_id
    assert int(again.number) > int(first.number)
    folder = Registry(NAME).download_folder(again, two / "again")
    assert (folder / "model.onnx").is_file()


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in ("status", "compare", "trace", "gc"))])
def test_every_command_explains_itself(command: Command, words: list[str]) -> None:
    code, text = command(*words)
    assert code == 0
    assert "usage: python -m training.registry" in text


def test_trace_takes_the_answer_to_a_batch_and_tells_what_names_nothing(two: Path, command: Command) -> None:
    version = next(iter(Registry(NAME).versions()))
    answers = json.dumps([{"label": "cat", "model": {"run_id": version.run_id}}])
    assert version.run_id in command("trace", answers)[1]
    for rubbish in ("x" * 300, "[]", str(two / "models/plots/learning_curves.png")):
        with pytest.raises(RegistryError, match="no version is"):
            command("trace", rubbish)


def test_a_champion_made_by_hand_is_named_and_can_be_escaped(two: Path, command: Command) -> None:
    from mlflow import MlflowClient

    client = MlflowClient()
    made = client.create_model_version(NAME, "file:///nowhere", run_id=None)
    client.set_registered_model_alias(NAME, "champion", made.version)
    with pytest.raises(RegistryError, match=f"version {made.version} was not made by training.register"):
        command("pull")
    outcome = promoted(two, force="back to one with lineage", **GOOD)
    assert not outcome.kept_out
    assert aliases()["champion"] == outcome.candidate.version


def test_a_database_that_was_not_finished_is_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full before MLflow has made all its tables: the next command finds none of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(RegistryError, match=r"mlflow\.db cannot be used"):
            Registry(NAME)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
    assert not Registry(NAME).exists()
