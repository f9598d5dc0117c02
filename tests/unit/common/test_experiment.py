from __future__ import annotations

from pathlib import Path

import pytest

from training.common.experiment import passed_over


def test_only_in_a_temporary_copy_is_anything_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "project/.dvc/tmp/exps/standalone/x"
    copy.mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "project")
    stage = {"DVC_STAGE": "register", "DVC_ROOT": str(tmp_path / "project")}
    monkeypatch.chdir(tmp_path / "link")
    assert passed_over("registered", {}) is None
    assert passed_over("registered", stage) is None
    assert passed_over("registered", stage | {"DVC_EXP_NAME": "short"}) is None
    monkeypatch.chdir(copy)
    told = passed_over("registered", stage | {"DVC_EXP_NAME": "short"})
    assert told
    assert told.startswith("nothing is registered from a temporary copy")
    assert "`dvc exp apply short`" in told
