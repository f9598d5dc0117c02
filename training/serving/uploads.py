"""Pictures between the request that brought them and the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.serving.errors import Fault


@dataclass(frozen=True)
class Decoded:
    """A decoded picture: the network's input uint8 [size, size, 3], and what the request log says of the file."""

    pixels: NDArray[np.uint8]
    facts: dict[str, Any]
    seconds: float
    data: bytes | None  # the file itself, if it is to be kept


@dataclass(frozen=True)
class Upload:
    """A picture on its way to the network, and what its answer needs to know; times are of time.perf_counter. `timing`
    is of its request: the longest that decode, queue and inference took a picture of it, in seconds."""

    decoded: Decoded
    request_id: str
    abstain: bool
    received: float
    ready: float
    timing: dict[str, float] = field(default_factory=dict)

    def took(self, **seconds: float) -> None:
        """Note in `timing` what a step took."""
        for name, each in seconds.items():
            self.timing[name] = max(each, self.timing.get(name, 0.0))

    @property
    def pixels(self) -> NDArray[np.uint8]:
        return self.decoded.pixels


@dataclass(frozen=True)
class RejectedUpload:
    """Stands for a picture of a batch that cannot be classified."""

    fault: Fault
    request_id: str

    def body(self) -> dict[str, Any]:
        return self.fault.body(self.request_id)
