from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from training.model.folder import ModelFolderError
from training.registry import bento_store
from training.registry.bento_store import StoreError

MEND = "name a folder for it in BENTOML_HOME"


def test_a_store_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "my störe"))
    bento_store.check()
    assert list((tmp_path / "my störe/models").iterdir()) == []


@pytest.mark.parametrize("variable", ["HOME", "BENTOML_HOME"])
def test_a_home_in_which_nothing_can_be_written(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENTOML_HOME", raising=False)
    monkeypatch.setenv(variable, "/dev/null/home")
    with pytest.raises(
        StoreError, match=rf"^the BentoML store /dev/null/home/\S*models cannot be written \(.*: {MEND}$"
    ):
        bento_store.check()


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a number that no user has."""

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.delenv("BENTOML_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(StoreError, match=f"^this user has no home folder, so {MEND}$"):
        bento_store.check()


@pytest.mark.parametrize(
    "tag",
    ["x:../../../etc", "../x:0123456789abcdef", "x/y:0123456789abcdef", "-", "x:latest", "x:0123456789abcdef\n", "x:"],
)
def test_a_tag_reaches_no_other_folder(tag: str) -> None:
    with pytest.raises(ModelFolderError, match="is not a tag of one of our Bento models"):
        bento_store.path_of(tag)
    assert not bento_store.is_whole(tag)
