"""What a model version knows as normal: the pictures of its validation split as drift checks compare them.

`reference.npz` lies in the model folder, so the reference is always that of the model that is served. It holds no
picture: only figures of each one (training.model.properties), the model's confidence and answer, and a sketch, its
embedding in 32 directions. The directions come from training pictures, never from those of the reference: fitted
to them, they would spread the reference wider than any other picture. They are whitened: left as they are, the
classes lie so far apart that nothing else counts (of 40 windows of 100 pictures, a little blurred, MMD at p <= 0.002
found 40; with the directions scaled within classes 7). Only numpy is imported: this module travels into the Bento.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.model.properties import PROPERTIES

REFERENCE_FILE = "reference.npz"
DIRECTIONS = 32


@dataclass(frozen=True)
class Reference:
    """Of N validation pictures, in no order that matters.

    properties float32 [N, 6] by PROPERTIES; confidences float32 [N]; labels int16 [N]: the class answered, as its place
    in the card's `classes`; sketches float16 [N, 32]; projection float32 [D, 32] and mean float32 [D] make them from
    embeddings; max_short_side: to which `prepare` scaled larger pictures down, so that short_side knows no more.
    """

    properties: NDArray[np.float32]
    confidences: NDArray[np.float32]
    labels: NDArray[np.int16]
    sketches: NDArray[np.float16]
    projection: NDArray[np.float32]
    mean: NDArray[np.float32]
    max_short_side: int

    @classmethod
    def build(
        cls,
        properties: list[dict[str, float]],
        probabilities: NDArray[np.float32],
        embeddings: NDArray[np.float32],
        directions: NDArray[np.float32],
        max_short_side: int,
    ) -> Reference:
        """From N pictures: figures, probabilities [N, classes], embeddings [N, D]; `directions` [D, k], strongest
        first, from other pictures. Where there are fewer than 32, the rest of a sketch is zero."""
        projection = np.zeros((embeddings.shape[1], DIRECTIONS), np.float32)
        kept = directions[:, :DIRECTIONS]
        projection[:, : kept.shape[1]] = kept
        mean = embeddings.mean(axis=0)
        return cls(
            np.array([[row[name] for name in PROPERTIES] for row in properties], np.float32),
            probabilities.max(axis=1),
            probabilities.argmax(axis=1).astype(np.int16),
            ((embeddings - mean) @ projection).astype(np.float16),
            projection,
            mean,
            max_short_side,
        )

    @classmethod
    def load(cls, folder: Path) -> Reference | None:
        """The reference in a model folder; None when the folder was exported before there were any."""
        path = folder / REFERENCE_FILE
        if not path.is_file():
            return None
        with np.load(path) as stored:
            values = {field.name: stored[field.name] for field in fields(cls)}
        return cls(**values | {"max_short_side": int(values["max_short_side"])})

    def save(self, folder: Path) -> None:
        """Write reference.npz; the same reference gives the same bytes."""
        np.savez(folder / REFERENCE_FILE, **{field.name: getattr(self, field.name) for field in fields(self)})

    def sketch(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sketches float32 [N, 32] of embeddings float32 [N, D]."""
        return np.asarray((embeddings - self.mean) @ self.projection, np.float32)
