"""A multipart/form-data body, already in memory and bounded, to its parts."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from training.serving.errors import Fault

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FILES = ("image/", "application/octet-stream")  # content types of parts that are files without a file name too
EXTENDED = re.compile(rb";\s*filename\*\s*=\s*[^'\s]*'[^']*'([^;\s]*)", re.IGNORECASE)  # RFC 5987
SPARE_PARTS = 8  # parts beside the pictures that a form may have


@dataclass
class Part:
    """One field of the form; `media` is its own content type."""

    name: str = ""
    filename: str | None = None
    media: str = ""
    data: bytearray = field(default_factory=bytearray)

    @property
    def is_file(self) -> bool:
        """Whether it has a file name, or says that it is no text."""
        return self.filename is not None or self.media.startswith(FILES)


class _Collector:
    """Callbacks of the parser: they gather the parts, and stop at `limit` of them."""

    def __init__(self, limit: int) -> None:
        self.parts: list[Part] = []
        self.limit = limit
        self.complete = False
        self._field, self._value = bytearray(), bytearray()

    def on_part_begin(self) -> None:
        if len(self.parts) == self.limit:
            message = f"the form has more than {self.limit} fields"
            raise Fault(422, "too_many_fields", message, "send fewer pictures in one request")
        self.parts.append(Part())

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        header, part = bytes(self._field).lower(), self.parts[-1]
        if header == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            part.name = options.get(b"name", b"").decode("utf-8", "replace")
            if b"filename" in options:
                part.filename = options[b"filename"].decode("utf-8", "replace")
            elif encoded := EXTENDED.search(self._value):  # the parser leaves it out
                part.filename = urllib.parse.unquote(encoded[1].decode("latin-1"))
        elif header == b"content-type":
            part.media = self._value.decode("latin-1").strip().lower()
        self._field.clear()
        self._value.clear()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def on_end(self) -> None:
        self.complete = True


def parse(body: bytes, content_type: str, max_pictures: int) -> list[Part]:
    """The parts of `body` in order; Fault 400 when it is not well formed or ends early, 422 for too many parts."""
    hint = "let the HTTP library build the form, it also writes the boundary into Content-Type"
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise Fault(400, "broken_multipart", "Content-Type names no boundary", hint)
    collector = _Collector(max_pictures + SPARE_PARTS)
    callbacks: MultipartCallbacks = {
        "on_part_begin": collector.on_part_begin,
        "on_header_field": collector.on_header_field,
        "on_header_value": collector.on_header_value,
        "on_header_end": collector.on_header_end,
        "on_part_data": collector.on_part_data,
        "on_end": collector.on_end,
    }
    try:
        parser = MultipartParser(boundary, callbacks)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise Fault(400, "broken_multipart", f"the form cannot be read: {error}", hint) from None
    if not collector.complete:
        raise Fault(400, "broken_multipart", "the form ends before its closing boundary", hint)
    return collector.parts
