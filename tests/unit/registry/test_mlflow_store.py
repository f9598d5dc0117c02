from __future__ import annotations

import pytest

from training.registry.mlflow_store import RegistryError, Version

SHA = "ab" * 32
TAGS = {"model_sha256": SHA, "bento_tag": f"cats:{SHA[:16]}", "git_commit": "c", "data_hash": "d"}


def version(**tags: str) -> Version:
    return Version("3", "r" * 32, 0, TAGS | tags, "cats")


@pytest.mark.parametrize("tag", [f"cats:{SHA[:16]}", f"cats:{SHA[:16]}-0123abcd"])
def test_a_version_names_its_own_model(tag: str) -> None:
    version(bento_tag=tag).check_origin()
    assert version(bento_tag=tag).bento_tag == tag


@pytest.mark.parametrize(
    "tags",
    [
        {"bento_tag": "cats:../../etc"},
        {"bento_tag": f"dogs:{SHA[:16]}"},
        {"bento_tag": "cats:" + "0" * 16},
        {"bento_tag": f"cats:{SHA[:16]}\n"},
        {"model_sha256": SHA.upper()},
        {"model_sha256": "../" + SHA[3:]},
    ],
)
def test_a_version_that_names_another_model_names_none(tags: dict[str, str]) -> None:
    assert version(**tags).bento_tag == "-"
    with pytest.raises(RegistryError, match="its tags were altered"):
        version(**tags).check_origin()
