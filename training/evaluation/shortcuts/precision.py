"""Which precision serves: int8 where the test pictures show that it answers as fp32 does and is quicker, else fp32."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from training.model.classifier import providers, session_options
from training.params import Promote

ROUNDS = 21
CALLED = {"int8": "int8", "glance": "a first look"}
SLACK = 1e-9  # of floating-point numbers that are compared with a limit


def changes(
    fp32: NDArray[np.int64], quick: NDArray[np.int64], labels: NDArray[np.int64], name: str = "int8"
) -> dict[str, float]:
    """What a quicker way, `name`, changed in the answers [N] to the test pictures, against the same weights in fp32."""
    return {
        "accuracy_fp32": float((fp32 == labels).mean()),
        f"accuracy_{name}": float((quick == labels).mean()),
        "label_changes": float((fp32 != quick).mean()),
    }


def too_different(found: dict[str, float], limits: Promote, name: str = "int8") -> str | None:
    """Why `changes` are more than the gate allows of int8, if they are."""
    if found["label_changes"] > limits.max_int8_label_changes + SLACK:
        return (
            f"{CALLED[name]} changes {found['label_changes']:.2%} of the answers to the test pictures, "
            f"more than {limits.max_int8_label_changes:.2%}"
        )
    if found["accuracy_fp32"] - found[f"accuracy_{name}"] > limits.max_int8_accuracy_loss + SLACK:
        return (
            f"{CALLED[name]} lowers the accuracy from {found['accuracy_fp32']:.4f} to {found[f'accuracy_{name}']:.4f}, "
            f"by more than {limits.max_int8_accuracy_loss:g}"
        )
    return None


def worse(fp32: dict[str, Any], int8: dict[str, Any], name: str = "int8") -> str | None:
    """Where the metrics of int8, or of what is called `name`, lie outside the 95 % interval of those of fp32, on the
    bad side; None: nowhere.

    Compared are how well pictures of other things are told apart, and behaviour: what must not matter (as far as
    `harmless` says) and what must lower the confidence.
    """
    for what, before, after, sign in _compared(fp32, int8):
        low, high = before["interval"]
        if sign * after["value"] < min(sign * low, sign * high) - SLACK:
            return f"{name} is worse at {what}: {after['value']:.4f}, before {before['value']:.4f}"
    return None


def _compared(fp32: dict[str, Any], int8: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], int]]:
    """Name, figure in fp32, figure in int8, and 1 where more is better, else -1."""
    yield (
        "telling other things apart (AUROC of novelty)",
        *(found["other_things"]["all"]["auroc_novelty"] for found in (fp32, int8)),
        1,
    )
    yield (
        'saying "not sure" to other things',
        *(found["other_things"]["all"]["not_sure"] for found in (fp32, int8)),
        1,
    )
    before, after = fp32["behaviour"], int8["behaviour"]
    for change in before["harmless"]:
        yield f"pictures made {change}", *(found["invariance"][change]["same_answer"] for found in (before, after)), 1
    for change in before["direction"]:
        yield (
            f"losing confidence in {change} pictures",
            *(found["direction"][change]["change"] for found in (before, after)),
            -1,
        )


def speedup(fp32: bytes, int8: bytes, picture: NDArray[np.uint8]) -> float:
    """How many times as fast int8 answers one picture uint8 [size, size, 3] on this machine, as it serves.

    The best times of two networks that run by turns: what else the machine does makes a time longer, never shorter. On
    a CPU it is the processor's time that counts, which hardly depends on who else wants it.
    """
    first, second = (
        onnxruntime.InferenceSession(model, session_options(threads=1), providers=providers()) for model in (fp32, int8)
    )
    clock = time.thread_time if first.get_providers() == ["CPUExecutionProvider"] else time.perf_counter
    times = np.array([[_seconds(session, picture, clock) for session in (first, second)] for _ in range(ROUNDS)])
    before, after = times.min(axis=0)
    return float(before / after)


def _seconds(session: onnxruntime.InferenceSession, picture: NDArray[np.uint8], clock: Callable[[], float]) -> float:
    begun = clock()
    session.run(None, {"image": picture[None]})
    return clock() - begun


def too_few(pictures: Sequence[object], limits: Promote) -> str | None:
    """Why so few test pictures show nothing, if they are too few."""
    if len(pictures) >= limits.min_test_pictures:
        return None
    return f"{len(pictures)} test pictures cannot show that int8 answers as fp32 does, {limits.min_test_pictures} can"


def told(found: dict[str, float], limits: Promote) -> str:
    """Why int8 serves."""
    return (
        f"{found['label_changes']:.2%} other answers to the test pictures than in fp32, accuracy "
        f"{found['accuracy_int8']:.4f} (fp32 {found['accuracy_fp32']:.4f}), "
        f"at least {limits.min_int8_speedup:g} times as fast"
    )
