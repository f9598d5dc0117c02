from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from training.registry import deployments
from training.registry.deployments import Deployment, DeploymentsError


def record(folder: Path, *rows: tuple[str, str]) -> Path:
    """A file of deployments: (target, model) in order."""
    path = folder / "deployments.jsonl"
    lines = [
        {"time": "t", "target": target, "bento": "b:1", "model": model, "image": "i", "digest": f"sha256:{number}"}
        for number, (target, model) in enumerate(rows)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_nothing_was_deployed_without_a_record(tmp_path: Path) -> None:
    assert deployments.read(tmp_path / "none") == []
    assert deployments.tags_in_use([]) == set()


def test_the_last_two_of_each_target_are_in_use(tmp_path: Path) -> None:
    path = record(tmp_path, ("k8s", "m:1"), ("k8s", "m:2"), ("docker", "m:0"), ("k8s", "m:3"))
    assert deployments.tags_in_use(deployments.read(path)) == {"m:2", "m:3", "m:0"}


def test_the_digest_is_that_of_the_last_deployment(tmp_path: Path) -> None:
    found = deployments.read(record(tmp_path, ("k8s", "m:1"), ("k8s", "m:2"), ("docker", "m:1")))
    assert deployments.digest_of("m:1", found) == "sha256:2"
    assert deployments.digest_of("m:9", found) == ""


def test_what_is_appended_is_read_and_a_failed_one_is_not_in_use(tmp_path: Path) -> None:
    path = tmp_path / "models/deployments.jsonl"
    stands = Deployment("t", "k8s", "b:1", "m:1", "i", "sha256:1", "3", "ada@laptop", "deployed")
    failed = Deployment("t", "k8s", "b:2", "m:2", "i", "sha256:2", "4", "ada@laptop", "failed: the smoke tests failed")
    for one in (stands, failed):
        deployments.append(one, path)
    assert deployments.read(path) == [stands, failed]
    assert deployments.tags_in_use([stands, failed]) == {"m:1"}
    assert deployments.digest_of("m:2", [stands, failed]) == ""


@pytest.mark.parametrize("line", ["{", "[]", "{}"])
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    path = record(tmp_path, ("k8s", "m:1"))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DeploymentsError, match="line 2 is not a deployment"):
        deployments.read(path)


def test_a_tag_of_the_registry_that_tells_of_none_is_named() -> None:
    with pytest.raises(DeploymentsError, match=r"tag deployments\.k8s/x tells of no deployments"):
        deployments.shared({"deployments.k8s/x": "[{}]", "owner": "ada"})


def test_what_both_this_machine_and_the_registry_know_is_told_once_in_order(tmp_path: Path) -> None:
    path = tmp_path / "deployments.jsonl"
    own = [
        Deployment(f"t{hour}", "k8s", "b:1", "m:1", "i", "sha256:1", "3", "ada", "failed: " + "x" * 500)
        for hour in (1, 3)
    ]
    for one in own:
        deployments.append(one, path)
    elsewhere = replace(own[0], time="t2", who="ci", result="deployed")
    short = replace(own[0], result=own[0].result[: deployments.LONGEST_RESULT])
    tags = {"deployments.k8s": json.dumps([asdict(short), asdict(elsewhere)])}
    assert deployments.known(tags, path) == [own[0], elsewhere, own[1]]
