"""How commands end: what a person can mend in one line, what is a fault of ours with its traceback."""

from __future__ import annotations

import ast
import contextlib
import shutil
import sqlite3
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.tiny import SOURCE
from training.common.command import run_command, spare_loopback
from training.common.errors import ExpectedError

CAUGHT_BEFORE = {
    "BoxError",  # training/model/picture/header.py refuses the picture
    "InstallError",  # training/install.py runs before anything is installed and ends by itself
    "NothingToDoError",  # monitoring/promoted.py answers it to MLflow
    "PassingError",  # data/download.py tries again
    "PictureError",  # one picture is refused, the others go on
    "_BusyError",  # training/serving/records/index.py looks into the log instead
}


def test_an_error_that_can_be_mended_is_one_line() -> None:
    def fails() -> None:
        raise ExpectedError("nothing here: make something")

    with pytest.raises(SystemExit, match=r"^error: nothing here: make something$"):
        run_command(fails)


def test_an_error_steers_no_terminal() -> None:
    def fails() -> None:
        raise ExpectedError("the tag \x1b[2J is odd:\nmend it")

    with pytest.raises(SystemExit, match=r"^error: the tag \\x1b\[2J is odd:\nmend it$"):
        run_command(fails)


def test_an_error_of_the_system_is_one_line_with_the_file() -> None:
    with pytest.raises(SystemExit, match=r"^error: .*No such file or directory: '/nowhere/at/all'$"):
        run_command(lambda: print(Path("/nowhere/at/all").read_text()))


def full_file() -> None:
    Path("/dev/full").write_text("x")


def full_copy() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("from/a", "to"):
            (Path(folder) / name).mkdir(parents=True)
        (Path(folder) / "from/a/file").write_text("x")
        (Path(folder) / "to/a").mkdir()
        (Path(folder) / "to/a/file").symlink_to("/dev/full")
        shutil.copytree(Path(folder) / "from", Path(folder) / "to", dirs_exist_ok=True)


def full_database() -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("PRAGMA max_page_count = 1")
        database.execute("CREATE TABLE t (a)")


def full_within() -> None:
    try:
        full_file()
    except OSError:
        raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904  # as torch does


@pytest.mark.needs("dev-full")
@pytest.mark.parametrize("fails", [full_file, full_copy, full_database, full_within])
def test_a_full_disk_is_one_line(fails: Callable[[], None]) -> None:
    with pytest.raises(SystemExit, match=r"^error: the disk is full \(.* free in .*\): make room and run .* again$"):
        run_command(fails)


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: print(1 / 0))


def test_ctrl_c_ends_as_a_shell_expects(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        run_command(interrupted)
    assert end.value.code == 130
    assert "run the command again" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
@pytest.mark.parametrize("given", [{}, {"NO_PROXY": "intra.example"}, {"no_proxy": "intra.example, 10.0.0.1"}])
def test_no_proxy_stands_before_ones_own_machine(
    monkeypatch: pytest.MonkeyPatch, variable: str, given: dict[str, str]
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in ({variable: "http://proxy.example:3128"} | given).items():
        monkeypatch.setenv(name, value)
    run_command(lambda: None)
    for host in ("127.0.0.1", "localhost", "[::1]"):
        assert requests.utils.get_environ_proxies(f"http://{host}:3000/predict") == {}
    assert requests.utils.get_environ_proxies("http://elsewhere.example/") != {}
    assert bool(urllib.request.proxy_bypass("intra.example")) == bool(given)


def test_an_environment_without_a_proxy_stays_as_it_is() -> None:
    for environ in ({}, {"no_proxy": "intra.example"}, {"http_proxy": ""}):
        before = dict(environ)
        spare_loopback(environ)
        assert environ == before


def error_classes() -> dict[str, list[str]]:
    """Every class of the project that is called an error -> the names of its bases."""
    files = [path for part in ("data", "k8s", "monitoring", "training") for path in (SOURCE / part).rglob("*.py")]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text()))]
    return {
        node.name: [ast.unparse(base).rpartition(".")[2] for base in node.bases]
        for node in nodes
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error") and node.name != "Error"
    }


def test_every_error_can_end_a_command() -> None:
    classes = error_classes()
    assert len(classes) > 20

    def expected(name: str) -> bool:
        return name == "ExpectedError" or any(expected(base) for base in classes.get(name, []))

    assert {name for name in classes if not expected(name)} == CAUGHT_BEFORE
