"""Make .venv with the locked dependencies; `make` runs this before every other target.

A note in .venv says for which folder, Python and locks it was made. Where all of that still holds, nothing is done.
A .venv of another folder or Python is made anew, one of other locks is brought up to date. uv installs if it is there,
pip otherwise, from the indexes that pip is configured with. Standard library only: nothing else is there yet.

Without an NVIDIA device, Linux gets CPU builds of torch if one of these indexes has them, or TORCH_INDEX=ADDRESS names
one that does. TORCH=cpu or TORCH=cuda decides otherwise.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

PYTHONS = ((3, 11), (3, 12), (3, 13))
VENV = Path(".venv")
NOTE = "installed"
TORCH_LOCK = "requirements-torch.lock"
LOCK = "requirements.lock"
MEASURED = "2.14.1"  # the torch whose CUDA build and libraries take these, on Linux x86-64; arm64 is alike
DOWNLOAD_GB, DISK_GB = 3.0, 5.3


OTHER_INDEXES = ("UV_INDEX", "UV_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX")


class InstallError(Exception):
    """The install cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Note:
    """What a .venv was made for. `folder` is absolute, without links; `torch` is `cpu`, `cuda` or `any`, the one there
    is; `locks` is the SHA-256 of the locks, empty while they are not all installed."""

    folder: str
    python: str
    locks: str
    torch: str

    @classmethod
    def read(cls, venv: Path) -> Note | None:
        """The note in `venv`; None if there is none, as after an install that was interrupted."""
        try:
            return cls(**json.loads((venv / NOTE).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, venv: Path) -> None:
        part = venv / (NOTE + ".part")
        part.write_text(json.dumps(asdict(self)) + "\n")
        part.replace(venv / NOTE)


def wanted(venv: Path, torch: str) -> Note:
    """The note of a .venv that is as the locks beside it say, run by this Python."""
    content = b"".join((venv.parent / name).read_bytes() for name in (TORCH_LOCK, LOCK))
    python = "{}.{}".format(*sys.version_info[:2])
    return Note(os.path.realpath(venv), python, hashlib.sha256(content).hexdigest(), torch)


def unusable(venv: Path, python: str) -> str:
    """Why what is in `venv` must be made anew for Python `python`; empty if it can be kept."""
    if not (venv / "bin/python").exists():
        return "the Python it was made with is gone"
    if not (venv / "bin/pip").exists():
        return "it has no pip"
    found = Note.read(venv)
    made_for = found.folder if found else _folder_in_configuration(venv)
    if made_for and os.path.realpath(made_for) != os.path.realpath(venv):
        return f"it was made for {made_for}"
    version = found.python if found else _configuration(venv).get("version", python)
    if version.split(".")[:2] != python.split("."):
        return f"it is of Python {version}, not {python}"
    return ""


def _configuration(venv: Path) -> dict[str, str]:
    try:
        rows = (venv / "pyvenv.cfg").read_text().splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (row.partition("=") for row in rows)}


def _folder_in_configuration(venv: Path) -> str:
    """The folder that `python -m venv` was called with; empty if another program made the environment."""
    call = _configuration(venv).get("command", "").partition(" -m venv ")[2]
    return call[call.index("/") :] if "/" in call else ""


def has_nvidia() -> bool:
    """Is there an NVIDIA device, or the driver's program, as in WSL?"""
    return bool(
        any(Path("/dev").glob("nvidia[0-9]*"))
        or shutil.which("nvidia-smi", path=f"{os.environ.get('PATH', os.defpath)}:/usr/lib/wsl/lib")
    )


def pins() -> dict[str, str]:
    """The locked versions of torch and torchvision."""
    found = re.findall(r"^(torch|torchvision)==([0-9.]+)", Path(TORCH_LOCK).read_text(), re.MULTILINE)
    return dict(found)


def misfits(complaints: Sequence[str]) -> list[str]:
    """Those complaints that are about locked packages. What someone added, `make tools` included, may want others."""
    text = Path(LOCK).read_text() + Path(TORCH_LOCK).read_text()
    locked = set(re.findall(r"^([\w.-]+)==", text, re.MULTILINE))
    names = (re.sub(r"[-_.]+", "-", complaint.split()[0]).lower() for complaint in complaints)
    return [complaint for complaint, name in zip(complaints, names, strict=True) if name in locked]


def pip_settings(listed: str) -> dict[str, str]:
    """pip's settings of `pip config list`: those of the environment before those of `install`, then `global`."""
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for name, value in re.findall(rf"^{section}\.([\w-]+)=(.*)$", listed, re.MULTILINE):
            found[name] = str(ast.literal_eval(value))
    return found


def without_index(settings: Mapping[str, str]) -> bool:
    """Whether pip is told to look in folders alone; uv has no variable for that."""
    return settings.get("no-index", "").lower() in ("1", "true", "yes", "on")


def as_uv(settings: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """uv's variables that say what pip's settings say: uv does not read those. What is set for uv itself stays."""

    def words(name: str) -> list[str]:
        return settings.get(name, "").split()

    said = {
        "UV_DEFAULT_INDEX": settings.get("index-url", ""),
        "UV_INDEX": " ".join(words("extra-index-url")),
        "UV_FIND_LINKS": ",".join(one for one in words("find-links") if "://" in one or Path(one).exists()),
        "UV_INSECURE_HOST": " ".join(words("trusted-host")),
        "UV_HTTP_TIMEOUT": settings.get("default-timeout", settings.get("timeout", "")),
        "SSL_CERT_FILE": settings.get("cert", ""),
        "ALL_PROXY": settings.get("proxy", ""),
        # All indexes are looked at, as pip does; every file has its hash in the lock.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    return {name: value for name, value in said.items() if value and name not in environment}


class Installer:
    """Installs into `venv` by uv where it is to be had, otherwise by pip."""

    def __init__(self, venv: Path) -> None:
        self.python = str(venv / "bin/python")
        self.pip = [self.python, "-m", "pip", "--disable-pip-version-check"]
        self.environment = dict(os.environ)
        found = shutil.which("uv")
        self.uv = [found] if found else [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else []
        self.no_index = False
        if self.uv:
            settings = pip_settings(self._asked([*self.pip, "config", "list"]))
            self.environment.update(as_uv(settings, os.environ))
            self.no_index = without_index(settings)

    def _asked(self, command: Sequence[str]) -> str:
        """What a command prints; nothing if it fails, as without a network."""
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
        return done.stdout if done.returncode == 0 else ""

    def has_cpu_builds(self) -> bool:
        """Does an index that pip is configured with have the locked torch and torchvision without CUDA?"""
        ask = [*self.pip, "--retries", "1", "--timeout", "15", "index", "versions"]
        return all(
            f"{version}+cpu" in re.split(r"[\s,()]+", self._asked([*ask, name])) for name, version in pins().items()
        )

    def complaints(self) -> list[str]:
        """What `pip check` says about the packages that are there: one line each, the package first."""
        done = subprocess.run([*self.pip, "check"], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode and not done.stdout:
            raise InstallError("`pip check` failed, see above")
        return done.stdout.splitlines() if done.returncode else []

    def install(self, *words: str, index: str = "") -> None:
        """`words` without their dependencies, which the locks name; from `index` alone if one is given."""
        if self.uv:
            command = [*self.uv, "pip", "install", "--python", self.python, "--no-deps", *words]
            command += ["--default-index", index] if index else ["--no-index"] if self.no_index else []
        else:
            command = [*self.pip, "install", "--no-deps", *words, *(["--index-url", index] if index else [])]
        environment = {name: text for name, text in self.environment.items() if not (index and name in OTHER_INDEXES)}
        if code := subprocess.run(command, env=environment, check=False).returncode:
            raise InstallError(
                f"{'uv' if self.uv else 'pip'} failed ({code}), see above; what is installed stays; run it again"
            )


def chosen_torch(installer: Installer, environment: Mapping[str, str]) -> str:
    """`cpu` or `cuda` on Linux, `any` elsewhere: the locks hold one build there. Tells of a large download."""
    asked, index = environment.get("TORCH", ""), environment.get("TORCH_INDEX", "")
    if asked not in ("", "cpu", "cuda"):
        raise InstallError(f"TORCH={asked} is unknown: use cpu or cuda")
    if index or platform.system() != "Linux":
        return "cpu" if index else "any"
    if asked == "cuda" or (not asked and has_nvidia()):
        return "cuda"
    if installer.has_cpu_builds():
        return "cpu"
    advice = "TORCH_INDEX=ADDRESS of an index with CPU builds (the page Get Started of pytorch.org names one)"
    if asked == "cpu":
        raise InstallError(f"none of pip's indexes has a CPU build of torch {pins()['torch']}: {advice}")
    print("This machine has no NVIDIA device, but none of pip's indexes has a CPU build of torch. The CUDA build runs")
    print(f"on the CPU too: {DOWNLOAD_GB} GB to download, {DISK_GB} GB on disk. A CPU build takes a tenth of that:")
    print(f"make install {advice}", flush=True)
    return "cuda"


def kept(note: Note | None, environment: Mapping[str, str]) -> bool:
    """Does the note fit this folder, these locks and the build of torch that is asked for?"""
    if note is None or note != wanted(VENV, note.torch):
        return False
    asked = "cpu" if environment.get("TORCH_INDEX") else environment.get("TORCH", "")
    return not asked or note.torch in (asked, "any")


def make(environment: Mapping[str, str]) -> None:
    """Make or mend .venv. Raises InstallError."""
    if (VENV.exists() or VENV.is_symlink()) and (reason := unusable(VENV, "{}.{}".format(*sys.version_info[:2]))):
        remove(reason)
    note = Note.read(VENV)
    if not VENV.exists():
        base = getattr(sys, "_base_executable", sys.executable)
        if subprocess.run([base, "-m", "venv", os.path.realpath(VENV)], check=False).returncode:
            raise InstallError(f"{base} cannot make {VENV}, see above (Debian, Ubuntu: apt-get install python3-venv)")
    installer = Installer(VENV)
    torch = chosen_torch(installer, environment)
    if note and note.torch != torch:
        remove(f"it has another build of torch: {note.torch}, not {torch}")
        return make(environment)
    replace(wanted(VENV, torch), locks="").write(VENV)
    print(f"Installing into {VENV} by {'uv' if installer.uv else 'pip'}: torch {pins()['torch']} ({torch})", flush=True)
    if torch == "cpu":
        local = "" if environment.get("TORCH_INDEX") else "+cpu"
        words = [f"{name}=={version}{local}" for name, version in pins().items()]
        installer.install(*words, index=environment.get("TORCH_INDEX", ""))
    else:
        installer.install("--require-hashes", "-r", TORCH_LOCK)
    installer.install("--require-hashes", "-r", LOCK)
    if broken := misfits(installer.complaints()):
        raise InstallError(f"the locked packages do not fit each other: {'; '.join(broken)}")
    wanted(VENV, torch).write(VENV)


def remove(reason: str) -> None:
    """Remove .venv, or the link that it is; what a link leads to stays."""
    print(f"{VENV} is recreated: {reason}", flush=True)
    if VENV.is_symlink():
        VENV.unlink()
    else:
        shutil.rmtree(VENV)


def main() -> int:
    """0: .venv is ready. 1: it is not, and why is printed. 130: interrupted; the next call goes on."""
    version = sys.version_info[:2]
    if version not in PYTHONS:
        known = ", ".join("{}.{}".format(*one) for one in PYTHONS)
        print(
            f"Python {known} are supported; {sys.executable} is {version[0]}.{version[1]}: make PYTHON=/path/to/python",
            file=sys.stderr,
        )
        return 1
    try:
        if not kept(Note.read(VENV), os.environ) or unusable(VENV, "{}.{}".format(*version)):
            make(os.environ)
    except InstallError as error:
        print(f"install: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninstall: interrupted; what is installed stays, and the next make continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
