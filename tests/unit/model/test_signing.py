from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.tiny import tiny_model_folder
from training.model import signing
from training.model.folder import ModelFolderError, write_sums
from training.model.signing import SigningError


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """A new elliptic-curve key: paths of its private and its public half."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return key_pair(tmp_path, "key")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_model_folder(tmp_path / "model").path


def test_a_signed_folder_verifies_wherever_it_is_moved(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    signing.sign(folder, keys[0])
    moved = folder.rename(tmp_path / "elsewhere")
    signing.verify(moved, keys[1])


def test_an_unsigned_folder_is_refused_where_a_signature_is_demanded(folder: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(ModelFolderError, match="is not signed"):
        signing.verify(folder, keys[1])


def test_another_key_is_refused(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    signing.sign(folder, keys[0])
    with pytest.raises(ModelFolderError, match="not the signature"):
        signing.verify(folder, key_pair(tmp_path, "other")[1])


def test_a_changed_file_is_refused_even_with_new_sums(folder: Path, keys: tuple[Path, Path]) -> None:
    signing.sign(folder, keys[0])
    (folder / "model_card.json").write_text("{}")
    with pytest.raises(ModelFolderError, match="was changed"):
        signing.verify(folder, keys[1])
    write_sums(folder)
    with pytest.raises(ModelFolderError, match="not the signature"):
        signing.verify(folder, keys[1])


def test_a_damaged_signature_is_refused(folder: Path, keys: tuple[Path, Path]) -> None:
    (folder / "model.sig").write_text("{}")
    with pytest.raises(ModelFolderError, match="not the signature"):
        signing.verify(folder, keys[1])


def test_keys_that_are_none_are_named(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no key")
    for key in (bad, tmp_path / "gone.pem"):
        with pytest.raises(SigningError, match=key.name):
            signing.sign(folder, key)
    signing.sign(folder, keys[0])
    for key in (bad, tmp_path / "gone.pem"):
        with pytest.raises(SigningError, match=key.name):
            signing.verify(folder, key)


def test_the_environment_decides_whether_a_signature_is_demanded(
    folder: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODEL_PUBLIC_KEY", raising=False)
    assert not signing.verify_if_configured(folder)
    monkeypatch.setenv("MODEL_PUBLIC_KEY", str(keys[1]))
    with pytest.raises(ModelFolderError, match="is not signed"):
        signing.verify_if_configured(folder)
    signing.sign(folder, keys[0])
    assert signing.verify_if_configured(folder)
