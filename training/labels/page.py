"""The audit as one page: pictures sorted by certainty, and what you say of them as lines for data/corrections.csv.

The page needs no server. It keeps nothing: what was said is copied or downloaded, and `python -m data.audit --add FILE`
checks and adds it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

from data.manifest import Picture
from training.common import html
from training.labels.corrections import COLUMNS, DROP
from training.labels.findings import Judged, Suspect
from training.model.picture.header import open_checked
from training.model.preprocess import whole

SHOWN = 120  # suspects of each split
MORE = 24  # groups of near duplicates, and outliers, of each split
TOGETHER = 4  # near duplicates that are shown beside each other
SIDE = 112  # pixels, longer side of a thumbnail
SCRIPT = Path(__file__).with_name("page.js")
STYLE = """<style>
.card{display:inline-block;vertical-align:top;width:240px;margin:4px;padding:6px;border:1px solid #aaa}
.card.said{border-color:#06c;box-shadow:0 0 0 2px #06c} .card input{width:100%;box-sizing:border-box;margin:2px 0}
.card p{margin:2px 0} #bar{position:sticky;top:0;background:#fff;padding:8px 0;border-bottom:1px solid #aaa}
textarea{width:100%;height:8em;box-sizing:border-box}
</style>"""
BAR = """<div id="bar"><label>Your name <input id="who" autocomplete="name"></label>
<button type="button" id="download">Download the lines</button> <button type="button" id="copy">Copy them</button>
<output id="state" role="status"></output></div>
<details><summary>The lines</summary><textarea id="lines" readonly aria-label="Lines of CSV"></textarea></details>"""


def page(splits: Sequence[Judged], found: Mapping[str, Any]) -> str:
    """The whole page; so few thumbnails that it stays small, whatever the data set."""
    classes = splits[0].classes
    options = "".join(f'<option value="{escape(name)}">' for name in (*classes, DROP))
    script = SCRIPT.read_text().replace("COLUMNS", repr(",".join(COLUMNS)))
    sections = [
        STYLE,
        "<p>Say what a picture shows, or that its label is right. Save the lines, then run "
        "<code>python -m data.audit --add corrections.csv</code>, commit data/corrections.csv and run "
        "<code>dvc repro</code>.",
        _shares(found),
        BAR,
        f'<datalist id="classes">{options}</datalist>',
        *(section for one in splits for section in _of_split(one)),
        f"<script>{script}</script>",
    ]
    return html.page("Label audit", sections)


def _shares(found: Mapping[str, Any]) -> str:
    rows = []
    for name in ("train", "validation", "test"):
        one = found[name]
        low, high = one["wrong_labels"]["interval"]
        share = f"{one['wrong_labels']['value']:.1%} ({low:.1%} to {high:.1%})"
        rows.append([name, str(one["pictures"]), share, str(one["suspects"]), str(one["outliers"])])
    pairs = [[escape(" and ".join(one["classes"])), f"{one['share']:.1%}"] for one in found["blurred_classes"]]
    tables = html.table(["split", "pictures", "wrong labels, estimated", "suspects", "outliers"], rows)
    return tables + (html.table(["classes that blur", "probability of the other"], pairs) if pairs else "")


def _of_split(one: Judged) -> Iterator[str]:
    suspects, twins, outliers = one.suspects(), one.twins(), one.outliers()
    yield f"<h2>{one.name}: {len(suspects)} labels that are probably wrong{_limit(suspects, SHOWN)}</h2>"
    if one.name == "test":
        yield (
            "<p>The test split measures every model. Each line needs a reason, and <code>--add</code> the option "
            "<code>--test</code>. Only pictures on which a model doubts the label are looked at, so the accuracy on "
            "audited labels is the kinder figure."
        )
    yield "".join(_suspect(suspect, one.name) for suspect in suspects[:SHOWN])
    yield f"<h2>{one.name}: {len(twins)} groups of near duplicates with different labels{_limit(twins, MORE)}</h2>"
    yield "".join(_card((picture,), one.name, "") for group in twins[:MORE] for picture in group[:TOGETHER])
    yield f"<h2>{one.name}: {len(outliers)} pictures unlike all others{_limit(outliers, MORE)}</h2>"
    yield "".join(_card((picture,), one.name, "") for picture in islice(outliers, MORE))


def _limit(found: Sequence[object], most: int) -> str:
    return f", the first {most}" if len(found) > most else ""


def _suspect(suspect: Suspect, split: str) -> str:
    return _card(suspect.pictures, split, suspect.guess, f"{suspect.certainty:.1%} wrong")


def _card(pictures: Sequence[Picture], split: str, guess: str, certainty: str = "") -> str:
    """A form for one label, of one picture or of near duplicates."""
    first = pictures[0]
    label = escape(first.label)
    looks = f", looks like <b>{escape(guess)}</b>" if guess else ""
    more = f" and {len(pictures) - 1} near duplicates" if len(pictures) > 1 else ""
    sums = " ".join(picture.sha256 for picture in pictures)
    offers = dict.fromkeys([first.label, *([guess] if guess else []), DROP])
    buttons = "".join(f'<button type="button" value="{escape(name)}">{escape(name)}</button> ' for name in offers)
    why = f"audit: looks like {guess}" if guess and split != "test" else ""
    return f"""<div class="card" data-sha="{sums}" data-test="{"yes" if split == "test" else ""}">
{"".join(_thumbnail(picture) for picture in pictures[:TOGETHER])}
<p>labelled <b>{label}</b>{looks} {certainty}<p><small>{escape(first.source)}{more}</small>
<p>{buttons}<input class="label" list="classes" placeholder="what it shows" aria-label="What it shows">
<input class="why" placeholder="why" aria-label="Why" value="{escape(why)}"></div>"""


def _thumbnail(picture: Picture) -> str:
    image = whole(open_checked(picture.path.read_bytes()))
    image.thumbnail((SIDE, SIDE))
    image.info.clear()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return html.picture(buffer.getvalue(), "image/jpeg", picture.source)
