"""What prepare found: a summary (data/report.json, a DVC metric) and one self-contained page (data/report.html)."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from data.layout.plan import counted
from data.pictures import Refused
from data.split import DROPPED, SPLITS, AssignedPicture, GoodPicture
from training.common import html
from training.common.html import picture, table
from training.labels.corrections import Corrections
from training.model.picture.header import open_checked
from training.model.preprocess import whole

Summary = dict[str, Any]
QUANTILES = {"min": 0.0, "p05": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}
EXAMPLES = 20  # groups of near duplicates in the summary
LISTED = 20  # classes in the terminal
WORDS = ("relabelled", "confirmed", "dropped")  # what a correction can do
THUMBNAIL = 64  # pixels, longer side
CLASS_THUMBNAILS, GROUPS, GROUP_THUMBNAILS, REFUSED, CORRECTED = 96, 12, 4, 60, 60  # at most so many on the page


@dataclass(frozen=True)
class Findings:
    """The pictures of the manifest, the files that are not in it, the groups of pictures that look alike, and what
    data/corrections.csv says."""

    pictures: Sequence[AssignedPicture]
    refused: Sequence[Refused]
    alike: Sequence[Sequence[GoodPicture]]
    said: Corrections = field(default_factory=dict)


def summarise(findings: Findings, manifest: str) -> Summary:
    """Counts, sizes, every refused file with its reason, near duplicates, and the hashes of the data."""
    pictures = findings.pictures
    counts = Counter((one.label, one.split) for one in pictures)
    labels = sorted({one.label for one in pictures})
    test = sorted(f"{one.examined.sha256} {one.label}\n" for one in pictures if one.split == "test")
    return {
        "pictures": len(pictures),
        "classes": {label: {split: counts[label, split] for split in SPLITS} for label in labels},
        "splits": {split: sum(counts[label, split] for label in labels) for split in SPLITS},
        "width": _quantiles([one.examined.width for one in pictures]),
        "height": _quantiles([one.examined.height for one in pictures]),
        "near_duplicates": _near_duplicates(findings.alike),
        "corrections": _corrections(findings),
        "quarantined": {
            "files": len(findings.refused),
            "reasons": dict(sorted(Counter(file.reason for file in findings.refused).items())),
            "list": [asdict(file) for file in findings.refused],
        },
        "data_hash": hashlib.sha256(manifest.encode()).hexdigest(),
        "test_hash": hashlib.sha256("".join(test).encode()).hexdigest(),
    }


def _quantiles(values: Sequence[int]) -> dict[str, int]:
    points = np.quantile(values, list(QUANTILES.values()), method="nearest")
    return dict(zip(QUANTILES, points.astype(int).tolist(), strict=True))


def _corrections(findings: Findings) -> Summary:
    """What people said about labels. A dropped picture of train or validation is among the quarantined files."""
    looked_at = [one for one in findings.pictures if one.given]
    shown = [one for one in looked_at if one.split != DROPPED]
    return {
        "relabelled": sum(one.label != one.given for one in shown),
        "confirmed": sum(one.label == one.given for one in shown),
        "dropped": len(looked_at) - len(shown) + sum(file.reason == "dropped" for file in findings.refused),
        "list": [_corrected(one, findings.said) for one in looked_at],
    }


def _corrected(one: AssignedPicture, said: Corrections) -> dict[str, str]:
    word = said[one.examined.sha256]
    where = {"source": one.examined.source, "split": "test" if one.split == DROPPED else one.split}
    return where | {"given": one.given, "label": word.label, "who": word.who, "why": word.why}


def _near_duplicates(alike: Sequence[Sequence[GoodPicture]]) -> Summary:
    mixed = [group for group in alike if len({one.label for one in group}) > 1]
    return {
        "groups": len(alike),
        "pictures": sum(len(group) for group in alike),
        "groups_of_several_classes": len(mixed),  # worth a look: one of the labels may be wrong
        "examples": [[one.examined.source for one in group] for group in [*mixed, *alike][:EXAMPLES]],
    }


def tell(summary: Summary) -> str:
    """The summary in a few lines for the terminal."""
    lines = [f"data/manifest.csv: {counted(summary['pictures'], 'picture')}, data hash {summary['data_hash'][:12]}"]
    classes = summary["classes"]
    smallest = sorted(classes, key=lambda label: sum(classes[label].values()))[:LISTED]
    if len(classes) > LISTED:
        lines.append(f"  {len(classes)} classes; the smallest:")
    for label in smallest if len(classes) > LISTED else classes:
        counts = classes[label]
        lines.append(f"  {label}: " + ", ".join(f"{split} {count}" for split, count in counts.items()))
    near, quarantined = summary["near_duplicates"], summary["quarantined"]
    reasons = ", ".join(f"{reason} {count}" for reason, count in quarantined["reasons"].items()) or "none"
    said = summary["corrections"]
    if looked_at := ", ".join(f"{name} {said[name]}" for name in WORDS if said[name]):
        lines.append(f"  data/corrections.csv: {looked_at}")
    alike = f"{counted(near['pictures'], 'picture')} in {counted(near['groups'], 'group')}"
    lines.append(f"  near duplicates: {alike if near['groups'] else 'none'}")
    lines.append(f"  quarantined: {reasons} (data/report.html shows them)")
    return "\n".join(lines)


def page(findings: Findings, summary: Summary, raw: Path) -> str:
    """One page of tables and thumbnails that needs no other file; so few thumbnails that it stays under 1 MB."""
    sections = [
        f"<p>{counted(summary['pictures'], 'picture')}, data hash <code>{summary['data_hash']}</code>",
        table(
            ["class", *SPLITS],
            ([escape(label), *map(str, counts.values())] for label, counts in summary["classes"].items()),
        ),
        table(
            ["pixels", *QUANTILES],
            ([side, *map(str, summary[side].values())] for side in ("width", "height")),
        ),
        *_class_sections(findings.pictures),
        *_corrected_section(findings, summary),
        f"<h2>{counted(len(findings.alike), 'group')} of near duplicates</h2>",
        *("<p>" + _strip(group[:GROUP_THUMBNAILS], raw) for group in findings.alike[:GROUPS]),
        f"<h2>{counted(len(findings.refused), 'quarantined file')}</h2>",
        table(["", "file", "reason", "detail"], _refused_rows(findings.refused[:REFUSED], raw)),
    ]
    if len(findings.refused) > REFUSED:
        sections.append(f"<p>... and {len(findings.refused) - REFUSED} more in report.json")
    return html.page("Data report", sections)


def _class_sections(pictures: Sequence[AssignedPicture]) -> Iterator[str]:
    classes: dict[str, list[AssignedPicture]] = {}
    for one in pictures:
        classes.setdefault(one.label, []).append(one)
    each = max(1, CLASS_THUMBNAILS // len(classes))
    for label, members in sorted(classes.items())[:CLASS_THUMBNAILS]:
        thumbnails = "".join(
            _thumbnail(one.examined.path, f"{one.split}: {one.examined.source}") for one in members[:each]
        )
        yield f"<h2>{escape(label)}</h2><p>{thumbnails}"


def _corrected_section(findings: Findings, summary: Summary) -> Iterator[str]:
    listed = summary["corrections"]["list"]
    if listed:
        paths = {one.examined.source: one.examined.path for one in findings.pictures if one.given}
        head = ["", "file", "split", "given", "corrected", "who", "why"]
        rows = (
            [_thumbnail(paths[one["source"]], one["source"]), *(escape(value) for value in one.values())]
            for one in listed[:CORRECTED]
        )
        yield f"<h2>{len(listed)} pictures whose labels were looked at</h2>" + table(head, rows)


def _strip(group: Sequence[GoodPicture], raw: Path) -> str:
    return "".join(_thumbnail(raw / one.examined.source, one.examined.source) for one in group)


def _refused_rows(refused: Sequence[Refused], raw: Path) -> Iterator[list[str]]:
    for file in refused:
        yield [_thumbnail(raw / file.source, file.source), escape(file.source), file.reason, escape(file.detail)]


def _thumbnail(path: Path, title: str) -> str:
    """An img tag that holds the picture itself; nothing for a file that cannot be decoded."""
    try:
        image = whole(open_checked(path.read_bytes()))
    except Exception:  # it is shown because it is damaged, and the reason stands beside it
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    image.info.clear()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return picture(buffer.getvalue(), "image/jpeg", title)
