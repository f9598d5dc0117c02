"""Makes references.npz: small files of every layout, and what another decoder sees in them.

    python -m venv somewhere && somewhere/bin/pip install tifffile imagecodecs opencv-python-headless
    somewhere/bin/python tests/unit/model/picture/references.py

TIFFs are written and read by tifffile 2026.3.3 (imagecodecs 2026.3.6), PNGs written and read by OpenCV 5.0.0. `files`
holds their bytes one after another up to `ends`, `seen` the pixels uint8 [N, 8, 10, 3] in RGB that the values are: so
scaled that the lowest of the type is 0 and the highest 255 (floating point: 0 and 1), turned round if white is zero.
"""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

SIZE = (8, 10)
TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32", "float64")
LAYOUTS = (("minisblack", None), ("miniswhite", None), ("rgb", "contig"), ("rgb", "separate"))
HERE = Path(__file__).parent


def span(kind: str) -> tuple[float, float]:
    """The lowest and the highest value of a type."""
    if kind.startswith("float"):
        return 0.0, 1.0
    limits = np.iinfo(kind)
    return float(limits.min), float(limits.max)


def picture() -> Any:
    """Shares of white, float64 [8, 10, 3], from 0 to 1."""
    rough = np.random.default_rng(0).random((3, 4, 3))
    smooth = cv2.resize(rough, SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


def tiff(kind: str, photometric: str, planes: str | None, compression: str | None, order: str) -> tuple[bytes, Any]:
    """A file, and the pixels that tifffile reads out of it."""
    low, high = span(kind)
    values = (low + picture() * (high - low)).astype(kind)
    if planes is None:
        values = np.ascontiguousarray(values[..., 0])
    elif planes == "separate":
        values = np.ascontiguousarray(np.moveaxis(values, -1, 0))
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        values,
        byteorder=order,
        photometric=photometric,
        planarconfig=planes,
        compression=compression,
        predictor=bool(compression),
        metadata=None,
    )
    read = tifffile.imread(io.BytesIO(file.getvalue())).astype(np.float64)
    read = np.moveaxis(read, 0, -1) if planes == "separate" else read
    share = (read - low) / (high - low)
    return file.getvalue(), levels(1 - share if photometric == "miniswhite" else share)


def png(bits: int, channels: int) -> tuple[bytes, Any]:
    """A file, and the pixels that OpenCV reads out of it."""
    top = 2**bits - 1
    shown = picture()[..., :channels] if channels < 4 else np.dstack([picture(), np.ones(SIZE)])
    values = (shown * top).astype(np.uint16 if bits > 8 else np.uint8)
    _, data = cv2.imencode(".png", values)
    read = cv2.imdecode(data, cv2.IMREAD_UNCHANGED).astype(np.float64) / top
    return data.tobytes(), levels(read[..., 2::-1] if channels >= 3 else read)


def levels(share: Any) -> Any:
    """Shares of white as uint8 [8, 10, 3]."""
    rgb = share if share.ndim == 3 else np.repeat(share[..., None], 3, axis=-1)
    return np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def main() -> None:
    made: dict[str, tuple[bytes, Any]] = {}
    for kind, (photometric, planes), compression, order in itertools.product(TYPES, LAYOUTS, (None, "zlib"), "<>"):
        name = " ".join(("tiff", kind, photometric, planes or "-", compression or "-", order))
        try:
            made[name] = tiff(kind, photometric, planes, compression, order)
        except (ValueError, NotImplementedError) as error:  # no predictor for this type
            print(name, error)
    for bits, channels in itertools.product((8, 16), (1, 3, 4)):
        made[f"png {bits} {channels}"] = png(bits, channels)
    files = [np.frombuffer(data, np.uint8) for data, _ in made.values()]
    np.savez_compressed(
        HERE / "references.npz",
        names=np.array(list(made)),
        files=np.concatenate(files),
        ends=np.cumsum([len(file) for file in files]),
        seen=np.stack([seen for _, seen in made.values()]),
    )


if __name__ == "__main__":
    main()
