"""Settings of the service: params.yaml, overridden by the environment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from training import params
from training.params import Capture, ParamsError, Serve
from training.serving import settings

ROOT = Path(__file__).parents[3]


def test_the_environment_overrides_params() -> None:
    plain = settings.load(ROOT, {})
    changed = settings.load(
        ROOT, {"SERVE_MAX_BYTES": "7", "SERVE_FORMATS": "[PNG]", "SERVE_RATE_LIMIT": "2.5", "OTHER": "1"}
    )
    assert changed == plain.model_copy(update={"max_bytes": 7, "formats": ["PNG"], "rate_limit": 2.5, "workers": 1})


@pytest.mark.parametrize(
    ("text", "value"), [("off", False), ("No", False), ("on", True), ("YES", True), ("true", True)]
)
def test_a_switch_takes_the_words_of_yaml_1_1(text: str, value: bool) -> None:
    assert settings.load(ROOT, {"SERVE_UI": text}).ui is value


def test_what_is_no_switch_keeps_its_words() -> None:
    assert settings.load(ROOT, {"SERVE_LOG_DIR": "off"}).log_dir == "off"


@pytest.fixture
def three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "usable_cores", lambda: 3)


@pytest.mark.usefixtures("three_cores")
def test_a_worker_for_each_core_unless_told_otherwise() -> None:
    assert settings.load(ROOT, {}).workers == 3
    assert settings.load(ROOT, {"SERVE_WORKERS": "5"}).workers == 5
    assert settings.load(ROOT, {"SERVE_RATE_LIMIT": "1"}).workers == 1
    with pytest.raises(ParamsError, match="rate_limit is counted in one process"):
        settings.load(ROOT, {"SERVE_RATE_LIMIT": "1", "SERVE_WORKERS": "2"})


@pytest.mark.usefixtures("three_cores")
@pytest.mark.parametrize(("device", "workers"), [("nvidia0", 1), ("dxg", 1), ("nvidiactl", 3)])
def test_one_worker_with_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, workers: int) -> None:
    (tmp_path / device).touch()
    monkeypatch.setattr(settings, "DEVICES", tmp_path)
    assert settings.load(ROOT, {}).workers == 3
    monkeypatch.setattr(settings, "distribution", lambda name: name)
    assert settings.load(ROOT, {}).workers == workers


@pytest.mark.usefixtures("three_cores")
@pytest.mark.parametrize(("workers", "threads"), [(1, 3), (2, 1), (3, 1), (8, 1)])
def test_cores_are_shared_out_among_the_workers(workers: int, threads: int) -> None:
    assert settings.threads(settings.load(ROOT, {}), workers) == threads
    assert settings.threads(settings.load(ROOT, {"SERVE_THREADS": "5"}), workers) == 5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SERVE_MAX_BITES", "1", "nearest valid key: 'max_bytes'"),
        ("SERVE_MAX_BYTES", "many", "max_bytes: .*found 'many'"),
        ("SERVE_MAX_BATCH", "1", "max_batch"),
        ("SERVE_FORMATS", "[JXL]", "formats"),
    ],
)
def test_a_wrong_override_is_named(name: str, value: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        settings.load(ROOT, {name: value})


NONSENSE = (
    *(
        "",
        " ",
        "@",
        "[",
        "{",
        "%",
        '"',
        "'",
        "*",
        "&a",
        "!x",
        "!!python/object:os.system",
        "|",
        ">",
        "?",
        "-",
        ",",
        "#",
    ),
    *("@x", "[x", "%x", '"x', "x: [", "a: b", "\t", "\x07", "é", "\udc80", "a\nb", "{}", "[]", "[[]]", "[1]", "x"),
    *("nan", ".nan", ".inf", "-.inf", "-1", "0", "1.5", "1e12", "1e400", "9" * 400, "9" * 5000, "0x10", "2026-11-24"),
    *("true", "null", "~", "1_000", "*a"),
)


@pytest.fixture
def params_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = params.load(ROOT / "params.yaml")
    monkeypatch.setattr(params, "load", lambda _: loaded)


@pytest.mark.usefixtures("params_read_once")
@pytest.mark.parametrize("key", [*Serve.model_fields, "nonsense"])
def test_nonsense_is_refused_in_one_line_that_names_the_key(key: str) -> None:
    accepted = [text for text in NONSENSE if not refused(lambda each: settings.load(ROOT, each), f"SERVE_{key}", text)]
    for text in accepted:
        found = settings.load(ROOT, {f"SERVE_{key}".upper(): text})
        assert max(found.timeout, found.upload_timeout, found.drain) <= 86_400
        assert max(found.workers, found.threads, found.log_files) <= 10_000
    assert len(accepted) < len(NONSENSE)


@pytest.mark.usefixtures("params_read_once")
@pytest.mark.parametrize("key", [*Capture.model_fields, "nonsense"])
def test_nonsense_about_captures_too(key: str) -> None:
    accepted = [
        text for text in NONSENSE if not refused(lambda each: settings.load_capture(ROOT, each), f"CAPTURE_{key}", text)
    ]
    for text in accepted:
        timedelta(days=settings.load_capture(ROOT, {f"CAPTURE_{key}".upper(): text}).retention_days)
    assert len(accepted) < len(NONSENSE)


def refused(load: Callable[[dict[str, str]], object], name: str, text: str) -> bool:
    try:
        load({name.upper(): text})
    except ParamsError as error:
        said = str(error)
        assert "\n" not in said
        assert len(said) < 500
        assert name.partition("_")[2] in said
        return True
    return False


def test_what_is_no_yaml_is_text() -> None:
    assert settings.load(ROOT, {"SERVE_LOG_DIR": "@logs"}).log_dir == "@logs"


def test_keys_come_from_the_environment_and_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("third\n\n fourth \n")
    found = settings.api_keys({"API_KEYS": "first, second,", "API_KEYS_FILE": str(path)})
    assert found == (b"first", b"second", b"third", b"fourth")
    assert settings.api_keys({}) == ()
    assert settings.own_key({"API_KEYS_FILE": str(path)}) == {"X-API-Key": "third"}
    assert settings.own_key({}) == {}


@pytest.mark.parametrize("key", ["schl\u00fcssel", "a\tb", "two words"])
def test_a_key_that_no_header_carries_is_refused(tmp_path: Path, key: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(key.encode())
    for environ in ({"API_KEYS": f"first,{key}"}, {"API_KEYS_FILE": str(path)}):
        with pytest.raises(ParamsError, match="no header carries"):
            settings.api_keys(environ)


def test_an_empty_list_of_keys_never_means_everybody(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("\n")
    for environ in ({"API_KEYS": ""}, {"API_KEYS_FILE": str(tmp_path / "keys")}):
        with pytest.raises(ParamsError, match="holds no key"):
            settings.api_keys(environ)
