"""The GitHub workflows: the linters agree, the house rules hold, and what they call exists."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring import promoted, relay
from training import install

ROOT = Path(__file__).parent.parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SCHEMA = "check-jsonschema --builtin-schema"
LINTERS = {
    "zizmor": "zizmor --offline --no-progress --persona auditor .github",
    "jactionlint": f"jactionlint {' '.join(str(path) for path in WORKFLOWS)}",
    "schema": f"{SCHEMA} vendor.github-workflows {' '.join(str(path) for path in WORKFLOWS)}",
    "timeouts": f"{SCHEMA} custom.github-workflows-require-timeout {' '.join(str(path) for path in WORKFLOWS)}",
    "dependabot": f"{SCHEMA} vendor.dependabot .github/dependabot.yml",
}
MACHINES = ("ubuntu-24.04", "ubuntu-24.04-arm", "macos-15")
PINNED = re.compile(r"uses: [\w.-]+(/[\w.-]+)+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
GRANTED = re.compile(r" +[a-z-]+: (read|write)\b(.*)")


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def text(request: pytest.FixtureRequest) -> str:
    path: Path = request.param
    return path.read_text()


def read(text: str) -> dict[str, Any]:
    """The workflow, with the key `on` that YAML takes for a yes."""
    found: dict[str, Any] = yaml.safe_load(text)
    return found | {"on": found[True]}  # type: ignore[index]


def machines(job: dict[str, Any]) -> list[str]:
    """The machines that a job runs on, one of them or those of its matrix."""
    if job["runs-on"] != "${{ matrix.machine }}":
        return [job["runs-on"]]
    matrix = job["strategy"]["matrix"]
    return [*matrix["machine"], *(one["machine"] for one in matrix["include"])]


def steps(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def faults(text: str) -> list[str]:
    """What of a workflow is against the rules of the house."""
    workflow = read(text)
    jobs = workflow["jobs"]
    rows = text.splitlines()
    found = [row for row in rows if "uses:" in row and not PINNED.search(row)]
    found += [row for row in rows if re.search(r"\|\| *(true|:)|continue-on-error|set \+e", row)]
    found += [row for row in rows if (granted := GRANTED.fullmatch(row)) and "#" not in granted[2]]
    found += [] if workflow["permissions"] == {} else ["permissions for all jobs"]
    for key in ("name", "permissions", "timeout-minutes"):
        found += [f"{name} has no {key}" for name, job in jobs.items() if key not in job]
    found += [f"{name} runs on {one}" for name, job in jobs.items() for one in machines(job) if one not in MACHINES]
    for step in steps(workflow):
        if "actions/checkout" in step.get("uses", "") and step["with"]["persist-credentials"] is not False:
            found.append("checkout leaves its token behind")
        if "${{" in step.get("run", ""):
            found.append(f"an expression in the shell: {step['name']}")
    return found + missing(workflow)


def missing(workflow: dict[str, Any]) -> list[str]:
    """What its commands call that does not exist here."""
    commands = "\n".join(step.get("run", "") for step in steps(workflow))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    found = [f"make {name}" for name in re.findall(r"\bmake ([a-z-]+)", commands) if name not in targets]
    modules = re.findall(r"python -m ((?:data|k8s|monitoring|training)[\w.]*)", commands)
    found += [name for name in modules if not importlib.util.find_spec(name)]
    scripts = re.findall(r"python (\S+\.py)", commands)
    return found + [name for name in scripts if not (ROOT / name).is_file()]


@pytest.mark.parametrize("name", LINTERS)
def test_linters_find_nothing(name: str) -> None:
    program, *words = LINTERS[name].split()
    path = Path(sys.executable).parent / program
    done = subprocess.run([path, *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_of_the_house_hold(text: str) -> None:
    assert faults(text) == []


PLANTED = {
    "a tag in place of a commit": (r"(actions/checkout@)[0-9a-f]{40}", r"\1v6"),
    "a pin without its version": (r"(actions/checkout@[0-9a-f]{40}) # v.*", r"\1"),
    "an error that is swallowed": (r"(run: make test|make check|run: make coverage)\n", r"\1 || true\n"),
    "a step that may fail": (r"(\n +)(- name: Locked)", r"\1- continue-on-error: true\1  name: Locked"),
    "a right without its reason": (r"contents: read #.*", "contents: read"),
    "rights for every job": (r"permissions: \{\}", "permissions: write-all"),
    "no rights of its own": (r"    permissions:\n      contents: read.*\n", ""),
    "no time limit": (r"    timeout-minutes: \d+\n", ""),
    "a moving machine": ("ubuntu-24.04", "ubuntu-latest"),
    "a token left behind": ("persist-credentials: false", "persist-credentials: true"),
    "an expression in the shell": (r"make install\n", "make install ${{ github.ref }}\n"),
    "a target that is not there": ("make install", "make instal"),
    "a module that is not there": (r"make install\n", "python -m training.retrain\n"),
    "a script that is not there": (r"make install\n", "python k8s/ship.py\n"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(fault: str) -> None:
    pattern, by = PLANTED[fault]
    changed, count = re.subn(pattern, by, (ROOT / ".github/workflows/ci.yml").read_text())
    assert count
    assert faults(changed)


def test_an_action_has_one_version_everywhere() -> None:
    pins = {pin for path in WORKFLOWS for pin in re.findall(r"uses: (\S+@\S+)", path.read_text())}
    names = [pin.partition("@")[0] for pin in pins]
    assert len(names) == len(set(names)), sorted(pins)


def test_a_roll_out_that_fails_itself_is_rolled_back_too() -> None:
    job = read((ROOT / ".github/workflows/release.yml").read_text())["jobs"]["deploy"]
    names = [step.get("id", step.get("name")) for step in job["steps"]]
    back = next(step for step in job["steps"] if step.get("name") == "Roll back")
    assert back["if"] == "(failure() || cancelled()) && steps.deploy.outcome != 'skipped'"
    assert names.index("deploy") < names.index("Smoke tests from where users are") < names.index("Roll back")


def test_every_python_is_tested() -> None:
    matrix = read((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == [f"{major}.{minor}" for major, minor in install.PYTHONS]
    assert {one["machine"] for one in matrix["include"]} | set(matrix["machine"]) == set(MACHINES)


def test_what_starts_each_workflow() -> None:
    on = {path.stem: read(path.read_text())["on"] for path in WORKFLOWS}
    assert set(on) == {"ci", "cluster", "release", "retrain", "scan"}
    assert set(on["ci"]) == {"pull_request", "push"}
    assert on["release"]["push"] == {"branches": ["main"], "tags": ["v*"]}
    assert on["release"]["repository_dispatch"] == {"types": [promoted.EVENT]}
    assert set(on["retrain"]) == {"workflow_dispatch", "schedule", "repository_dispatch"}
    assert on["retrain"]["repository_dispatch"] == {"types": [relay.EVENT]}
    assert "schedule" in on["scan"]


def test_new_versions_wait() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    assert {one["package-ecosystem"] for one in updates} >= {"pip", "github-actions"}
    assert all(one["cooldown"]["default-days"] >= 7 for one in updates)


@pytest.mark.parametrize(
    ("tag", "version"),
    [("v1.0.0+1", "v1.0.0_1"), ("v1/rc@2", "v1_rc_2"), ("v" * 200, "v" * 128), ("", "3-92d19775-15cc431512ab")],
)
def test_a_tag_of_git_makes_a_tag_of_an_image(tmp_path: Path, tag: str, version: str) -> None:
    """The step's own script, with a Docker that knows the label of the image alone."""
    workflow = read((ROOT / ".github/workflows/release.yml").read_text())
    [script] = [step["run"] for step in workflow["jobs"]["image"]["steps"] if step.get("id") == "build"]
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").write_text(
        "python() { :; }; docker() { [ $1 != image ] || echo 3-92d19775-15cc431512ab; }"
    )
    environment = {"PATH": os.environ["PATH"], "IMAGE": "ghcr.io/Me/Cats", "PLATFORMS": "linux/amd64", "VERSION": tag}
    environment |= {"GITHUB_SHA": "0" * 40, "GITHUB_OUTPUT": str(tmp_path / "output")}
    subprocess.run(["bash", "-e", "-o", "pipefail", "-c", script], check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "output").read_text() == f"name=ghcr.io/me/cats\nversion={version}\n"
