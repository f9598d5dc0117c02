"""training/install.py with real environments, pip and uv; the packages are empty ones, from folders of wheels."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from training import install

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent
BASE = str(getattr(sys, "_base_executable", sys.executable))
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
VERSION = "{}.{}".format(*sys.version_info[:2])


def wheel(folder: Path, name: str, version: str) -> None:
    """A package of one empty module in `folder`."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    rows = [f"{name}.py", f"{about}/METADATA", f"{about}/WHEEL", f"{about}/RECORD"]
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(rows[0], "")
        file.writestr(rows[1], f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(rows[2], "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(rows[3], "".join(f"{row},,\n" for row in rows))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three packages in `locked`, CPU builds of two in `cpu`, two later versions of one in `newer`."""
    folder = tmp_path_factory.mktemp("wheels")
    for name in ("torch", "torchvision", "other"):
        wheel(folder / "locked", name, "1.0")
    for name in ("torch", "torchvision"):
        wheel(folder / "cpu", name, "1.0+cpu")
    for version in ("2.0", "3.0"):
        wheel(folder / "newer", "other", version)
    return folder


def row(path: Path) -> str:
    """The lock's line of a wheel."""
    name, version = path.name.split("-")[:2]
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def project(folder: Path, wheels: Path) -> Path:
    """training/install.py with locks of the three packages in `locked`."""
    (folder / "training").mkdir(parents=True)
    shutil.copy(ROOT / "training/install.py", folder / "training")
    shutil.copy(ROOT / "Makefile", folder)
    rows = {path.name.split("-")[0]: row(path) for path in (wheels / "locked").iterdir()}
    (folder / install.TORCH_LOCK).write_text(rows["torch"] + rows["torchvision"])
    (folder / install.LOCK).write_text(rows["other"])
    return folder


def made(folder: Path, *indexes: Path, uv: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
    """`make install` that finds packages in these folders alone."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("make", "bash", "sh", "awk"):
        found = shutil.which(name)
        if found and not (tools / name).exists():
            (tools / name).symlink_to(found)
    if uv and UV and not (tools / "uv").exists():
        (tools / "uv").symlink_to(UV)
    links = " ".join(str(path) for path in indexes)
    environment = {"PATH": str(tools), "HOME": str(folder), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": links}
    variables = {"PYTHON": BASE} | variables
    return subprocess.run(
        [tools / "make", "install"],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def installed(folder: Path) -> dict[str, str]:
    """Version of each of the three packages that is in the project's .venv."""
    found = (folder / f".venv/lib/python{VERSION}/site-packages").glob("*.dist-info")
    named = dict(path.name.removesuffix(".dist-info").split("-", 1) for path in found)
    return {name: version for name, version in named.items() if name in ("torch", "torchvision", "other")}


LOCKED = {"torch": "1.0", "torchvision": "1.0", "other": "1.0"}


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Path:
    """A project that pip installed from the locks alone, as on a machine with an NVIDIA device."""
    folder = project(tmp_path_factory.mktemp("desk") / "a & b", wheels)
    done = made(folder, wheels / "locked", TORCH="cuda")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "by pip" in done.stdout
    assert installed(folder) == LOCKED
    return folder


@pytest.fixture(scope="module")
def copied(ready: Path, wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder, where `make install` was called again. Tests may change what is installed in it."""
    copy = Path(shutil.copytree(ready, tmp_path_factory.mktemp("elsewhere") / "copy", symlinks=True))
    done = made(copy, wheels / "locked", TORCH="cuda")
    assert done.returncode == 0, done.stderr
    assert f".venv is recreated: it was made for {ready}/.venv" in done.stdout
    return copy


def test_nothing_is_done_twice(ready: Path) -> None:
    before = (ready / ".venv/installed").stat().st_mtime_ns
    done = made(ready)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (ready / ".venv/installed").stat().st_mtime_ns == before


def test_a_link_to_an_environment_elsewhere_is_no_copy(ready: Path, wheels: Path, tmp_path: Path) -> None:
    folder = project(tmp_path / "linked", wheels)
    (folder / ".venv").symlink_to(ready / ".venv")
    done = made(folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_copied_folder_gets_an_environment_of_its_own(ready: Path, copied: Path) -> None:
    assert installed(copied).keys() == installed(ready).keys() == LOCKED.keys()
    assert f"{copied}/.venv/bin/python" in (copied / ".venv/bin/pip").read_text().splitlines()[0]


def test_a_file_that_is_not_the_locked_one_ends_it_and_the_next_call_goes_on(copied: Path, wheels: Path) -> None:
    text = row(wheels / "newer/other-2.0-py3-none-any.whl")
    (copied / install.LOCK).write_text(text[:-65] + "0" * 64 + "\n")
    places = (wheels / "locked", wheels / "newer")
    before = installed(copied)
    done = made(copied, *places, TORCH="cuda")
    assert done.returncode != 0
    assert "install: pip failed (1), see above; what is installed stays; run it again\n" in done.stderr
    assert installed(copied) == before
    (copied / install.LOCK).write_text(text)
    done = made(copied, *places, TORCH="cuda")
    assert done.returncode == 0, done.stderr
    assert "anew" not in done.stdout
    assert installed(copied) == LOCKED | {"other": "2.0"}


@pytest.mark.needs("no-nvidia")
def test_without_cpu_builds_it_says_how_large_the_others_are(copied: Path, wheels: Path) -> None:
    (copied / install.LOCK).write_text(row(wheels / "newer/other-3.0-py3-none-any.whl"))
    places = (wheels / "locked", wheels / "newer")
    refused = made(copied, *places, TORCH="cpu")
    assert refused.returncode != 0
    assert "none of pip's indexes has a CPU build of torch 1.0: TORCH_INDEX=ADDRESS" in refused.stderr
    done = made(copied, *places)
    assert done.returncode == 0, done.stderr
    assert f"{install.DOWNLOAD_GB} GB to download, {install.DISK_GB} GB on disk" in done.stdout
    assert installed(copied) == LOCKED | {"other": "3.0"}


@pytest.mark.needs("no-nvidia")
def test_without_a_device_cpu_builds_are_taken_where_pip_knows_them(wheels: Path, tmp_path: Path) -> None:
    """By uv, if it is there."""
    folder = project(tmp_path / "project", wheels)
    done = made(folder, wheels / "locked", wheels / "cpu", uv=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"by {'uv' if UV else 'pip'}: torch 1.0 (cpu)" in done.stdout
    assert installed(folder) == {"torch": "1.0+cpu", "torchvision": "1.0+cpu", "other": "1.0"}
    assert json.loads((folder / ".venv/installed").read_text())["torch"] == "cpu"
    assert made(folder).stdout == ""


def test_the_size_was_measured_for_the_locked_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert install.pins()["torch"] == install.MEASURED


def environment_of(folder: Path, version: str, command: str = "") -> Path:
    """What of an environment is looked at, without a note."""
    (folder / "bin").mkdir(parents=True)
    for name in ("python", "pip"):
        (folder / "bin" / name).touch()
    (folder / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {version}\ncommand = {command}\n")
    return folder


def test_what_cannot_be_kept(tmp_path: Path) -> None:
    venv = environment_of(tmp_path / "a b/.venv", "3.12.1")
    assert install.unusable(venv, "3.12") == ""
    assert install.unusable(venv, "3.13") == "it is of Python 3.12.1, not 3.13"
    own = environment_of(tmp_path / "c d/.venv", "3.12.1", f"/usr/bin/python3 -m venv {tmp_path}/c d/.venv")
    assert install.unusable(own, "3.12") == ""
    copied = environment_of(tmp_path / "e/.venv", "3.12.1", f"/usr/bin/python3 -m venv --clear {tmp_path}/c d/.venv")
    assert install.unusable(copied, "3.12") == f"it was made for {tmp_path}/c d/.venv"
    install.Note(os.path.realpath(copied), "3.12", "", "any").write(copied)
    assert install.unusable(copied, "3.12") == ""
    (copied / "bin/pip").unlink()
    assert install.unusable(copied, "3.12") == "it has no pip"
    (copied / "bin/python").unlink()
    (copied / "bin/python").symlink_to("/nonexistent/python3.12")
    assert install.unusable(copied, "3.12") == "the Python it was made with is gone"


def test_uv_is_given_what_pip_is_configured_with() -> None:
    listed = (
        ":env:.find-links='https://a.example/w https://b.example/w'\nglobal.index-url='https://c.example/simple'\n"
        "global.cert='/etc/own.pem'\ninstall.cert='/etc/other.pem'\nglobal.extra-index-url='\\nhttps://d.example\\nhttps://e.example'\n"
    )
    settings = install.pip_settings(listed)
    assert settings["cert"] == "/etc/other.pem"
    assert install.as_uv(settings, {"UV_INDEX": "https://own.example"}) == {
        "UV_DEFAULT_INDEX": "https://c.example/simple",
        "UV_FIND_LINKS": "https://a.example/w,https://b.example/w",
        "SSL_CERT_FILE": "/etc/other.pem",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    assert install.as_uv(settings, {})["UV_INDEX"] == "https://d.example https://e.example"
    assert install.without_index({"no-index": "true"})
    assert not install.without_index({"no-index": "0"})


def test_no_python_that_will_do(wheels: Path, tmp_path: Path) -> None:
    folder = project(tmp_path / "project", wheels)
    done = made(folder, PYTHON="")
    assert done.returncode != 0
    assert "Python 3.11, 3.12 or 3.13 with its module venv is needed" in done.stderr
    assert not (folder / ".venv").exists()


def test_a_python_that_will_not_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    assert install.main() == 1
    assert f"{sys.executable} is 3.10: make PYTHON=/path/to/python" in capsys.readouterr().err


def test_only_locked_packages_must_fit(ready: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ready)
    locked = "other 1.0 has requirement torch<1, but you have torch 1.0."
    assert install.misfits([locked, "added 2.0 requires torch, which is not installed."]) == [locked]
