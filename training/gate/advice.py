"""What would probably help a model that was kept out, from the figures of its own run: at most three sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from data.manifest import Manifest

if TYPE_CHECKING:
    from training.gate.checks import Check

MOST = 3
FEW = 100  # test pictures: below it even a good model can hardly be told from guessing or from its champion
GAIN = 0.005  # in accuracy: what twice the pictures must have brought to be worth a sentence
REMEDIES = {
    "same test data": "run `dvc repro`: the pictures changed after the model was evaluated",
    "parity": "run `dvc repro --force export`: what serves differs from what was trained",
    "self-check": "run `dvc repro --force export`: the folder does not answer as it did at evaluation",
    "classes": "choose another `register.name`: other classes are another problem",
    "recorded accuracy": "run `dvc repro --force evaluate`: the record and the model disagree",
    "int8": "set `export.precision: auto` or `fp32`: int8 changes too many answers on these pictures",
    "first look": "set `export.glance: false`: a first look changes too many answers on these pictures",
    "latency": "set `export.precision: auto` if it is fp32, or choose a smaller `train.architecture`",
    "size": "choose a smaller `train.architecture`, or raise `promote.max_size_mb`",
    "invariance": "list in `evaluate.harmless` only the changes that leave your classes as they are",
    "named pictures": "look at the pictures of data/named.txt that are answered wrong: /ui/model shows them",
}
ABOUT_PICTURES = {
    "better than guessing",
    "accuracy",
    "accuracy by class",
    "accuracy by slice",
    "calibration",
    "direction",
    "test pictures",
    "never worse",
    "non-inferior",
}


def advice(checks: Iterable[Check], card: dict[str, Any], manifest: Manifest) -> list[str]:
    """What would help with the checks that failed; empty where none did. `card`: of the candidate."""
    failed = [check.name for check in checks if not check.passed]
    remedies = [REMEDIES[name] for name in failed if name in REMEDIES]
    if ABOUT_PICTURES.intersection(failed):
        remedies += _about_pictures(card, manifest)
    return remedies[:MOST]


def _about_pictures(card: dict[str, Any], manifest: Manifest) -> Iterator[str]:
    metrics, tested = card["metrics"], len(manifest.split("test"))
    if tested < FEW:
        yield f"add pictures: {tested} test pictures are few; with {FEW} or more, models can be told apart"
    yield from _weak(metrics.get("weak_classes") or [], manifest)
    yield from _confused(metrics)
    yield from _more((card.get("head") or {}).get("learning_curve") or [])
    yield from _rare(manifest)


def _weak(weak: Sequence[dict[str, Any]], manifest: Manifest) -> Iterator[str]:
    """The weakest class, and how many pictures it was learnt from."""
    if weak:
        worst = weak[0]
        count = sum(picture.label == worst["class"] for picture in manifest.split("train"))
        yield (
            f"add pictures of {worst['class']}, the weakest class: {worst['recall']:.0%} of its {worst['pictures']} "
            f"test pictures are classified correctly; it has {count} training pictures, and is most often mistaken for "
            f"{worst['mistaken_for']}"
        )


def _confused(metrics: dict[str, Any]) -> Iterator[str]:
    """The most frequent mistake."""
    for pair in metrics.get("confused", [])[:1]:
        yield (
            f"look at the labels of {pair['is']} and {pair['says']}: {pair['pictures']} test pictures of {pair['is']} "
            f"({pair['share']:.0%}) are taken for {pair['says']}, the most frequent mistake"
        )


def _more(curve: Sequence[dict[str, float]]) -> Iterator[str]:
    """What twice the training pictures would bring, by what the last doubling brought."""
    if len(curve) < 2:
        return
    half, whole = curve[-2:]
    gain = whole["accuracy"] - half["accuracy"]
    if gain >= GAIN:
        yield (
            f"add training pictures: from {half['pictures']:.0f} to {whole['pictures']:.0f} the accuracy rose by "
            f"{gain:.1%}, and twice as many would probably bring about half of that again"
        )


def _rare(manifest: Manifest) -> Iterator[str]:
    """The class with the fewest training pictures, where it has far fewer than most."""
    counts = Counter(picture.label for picture in manifest.split("train"))
    name, least = min(counts.items(), key=lambda pair: (pair[1], pair[0]))
    if least * 2 <= median(counts.values()):
        usual = f"{median(counts.values()):.0f}"
        yield f"add pictures of {name}: it has {least} training pictures, half of the classes have {usual} and more"
