"""What the load tests send: photographs where there are some, else the pictures in the model folder."""

from __future__ import annotations

from pathlib import Path

from tests.parts import photographs

ROOT = Path(__file__).parent.parent.parent
MOST = 200


def pictures() -> tuple[bytes, ...]:
    """Bytes of the pictures, classes in turn."""
    folder = photographs()
    if folder is None:
        paths = sorted((ROOT / "models/model/self_check").iterdir())
    else:
        classes = [sorted(one.iterdir()) for one in sorted((folder / "test").iterdir())]
        paths = [path for together in zip(*classes, strict=False) for path in together]
    return tuple(path.read_bytes() for path in paths[:MOST])
