"""Optional signature of a model folder (model-signing, the OpenSSF's format), by an elliptic-curve key.

Signed is SHA256SUMS, which lists every file: whoever holds the public key checks the signature, then the sums. The
command line of model-signing reads it too:

    model_signing verify key SHA256SUMS --signature model.sig --public-key PUBLIC.pem && sha256sum -c SHA256SUMS
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from training.common.errors import ExpectedError
from training.model.folder import SIGNATURE_FILE, SUMS_FILE, ModelFolderError, verify_sums

PUBLIC_KEY_VARIABLE = "MODEL_PUBLIC_KEY"
RECORD = "record"  # name of the file in which bytes are signed


class SigningError(ExpectedError):
    """A key cannot be used; the message says which."""


def sign(folder: Path, private_key: Path) -> None:
    """Write model.sig into `folder`; SigningError when the key cannot be read."""
    _sign(folder / SUMS_FILE, folder / SIGNATURE_FILE, private_key)


def sign_bytes(data: bytes, private_key: Path) -> str:
    """The signature of `data`, for `verify_bytes`; SigningError when the key cannot be read."""
    with tempfile.TemporaryDirectory(prefix="sign-") as folder:
        path, signature = Path(folder, RECORD), Path(folder, SIGNATURE_FILE)
        path.write_bytes(data)
        _sign(path, signature, private_key)
        return signature.read_text()


def _sign(path: Path, signature: Path, private_key: Path) -> None:
    library = _library()
    if not private_key.is_file():
        raise SigningError(f"the signing key {private_key} does not exist: correct register.signing_key in params.yaml")
    try:
        signer = library.signing.Config().use_elliptic_key_signer(private_key=private_key)
        signer.sign(path, signature)
    except (ValueError, TypeError) as error:
        raise SigningError(f"{private_key} is not an unencrypted elliptic-curve key in PEM: {error}") from None


def verify(folder: Path, public_key: Path) -> None:
    """Check signature, then checksums. ModelFolderError when the folder was not signed by that key or was changed
    since, SigningError when the key cannot be read."""
    verifier = _verifier(public_key)
    if not (folder / SIGNATURE_FILE).is_file():
        raise ModelFolderError(
            f"{folder} is not signed, but {PUBLIC_KEY_VARIABLE} requires it: set register.signing_key"
        )
    try:
        verifier.verify(folder / SUMS_FILE, folder / SIGNATURE_FILE)
    except Exception as error:  # the library's verifiers raise bare ValueErrors, pydantic's and protobuf's alike
        raise ModelFolderError(
            f"{folder / SIGNATURE_FILE} is not the signature of {SUMS_FILE} by {public_key}"
        ) from error
    verify_sums(folder)


def verify_bytes(data: bytes, signature: str, public_key: Path) -> None:
    """ModelFolderError unless `signature` is that of `data` by the key, SigningError when the key cannot be read."""
    verifier = _verifier(public_key)
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        path, signed = Path(folder, RECORD), Path(folder, SIGNATURE_FILE)
        path.write_bytes(data)
        signed.write_text(signature)
        try:
            verifier.verify(path, signed)
        except Exception as error:  # as above
            raise ModelFolderError(f"this was not signed by {public_key}, or was changed since") from error


def _verifier(public_key: Path) -> Any:
    library = _library()
    if not public_key.is_file():
        raise SigningError(f"the public key {public_key} does not exist: correct {PUBLIC_KEY_VARIABLE}")
    try:
        return library.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (ValueError, TypeError) as error:
        raise SigningError(f"{public_key} is not an elliptic-curve public key in PEM: {error}") from None


def verify_if_configured(folder: Path) -> bool:
    """Verify `folder` when MODEL_PUBLIC_KEY names a key; whether it did."""
    key = os.environ.get(PUBLIC_KEY_VARIABLE)
    if key:
        verify(folder, Path(key))
    return bool(key)


def _library() -> ModuleType:
    try:
        import model_signing
    except ImportError as error:
        raise SigningError(
            f"signatures need the packages model-signing and pyopenssl ({error}): install them, "
            f"and add them to bentofile.yaml if the service shall verify; or unset {PUBLIC_KEY_VARIABLE}"
        ) from None
    library: ModuleType = model_signing
    return library
