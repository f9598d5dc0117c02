"""Pages that need no other file: tables, pictures and plots inside one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>
body{{font:14px system-ui;margin:2em;overflow-wrap:break-word}}
td,th{{padding:2px 10px;text-align:left}} table{{margin:1em 0}}
img{{margin:1px;max-width:100%;height:auto}}
@media(max-width:600px){{body{{margin:1em}} table{{font-size:12px}} td,th{{padding:2px 4px}}
  td:nth-child(2){{overflow-wrap:anywhere}}}}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def page(title: str, sections: Iterable[str]) -> str:
    """A page with a title over its sections, each a piece of HTML."""
    return PAGE.format(title=escape(title), body="\n".join(sections))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML: escape what comes from outside."""
    body = "\n".join("<tr>" + "".join(f"<td>{cell}" for cell in row) for row in rows)
    return "<table><tr>" + "".join(f"<th>{cell}" for cell in head) + f"\n{body}</table>"


def picture(data: bytes, media: str, title: str) -> str:
    """An img tag that holds the picture itself, a file of the media type `media`."""
    return f'<img src="data:{media};base64,{base64.b64encode(data).decode()}" title="{escape(title)}">'
