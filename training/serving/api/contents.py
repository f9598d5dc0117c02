"""The pictures in a request's body: a form, JSON with base64, or the picture itself. No address is ever fetched."""

from __future__ import annotations

import binascii
import functools
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from training.params import Serve
from training.serving.api.bodies import too_many_bytes
from training.serving.api.multipart import Part, parse
from training.serving.errors import Fault

FORM = "multipart/form-data"
JSON = "application/json"
OCTETS = "application/octet-stream"
FORM_BYTES = 16 * 1024  # what a form or JSON may have beside its picture
ONE, MANY = "image", "images"  # names of the fields
BETWEEN = b" \t\r\n"  # characters of base64, where it is broken into lines
DATA_URL, DATA_MARK = "data:", ";base64,"

HINT = "send the bytes of the picture in base64, or as data:image/jpeg;base64,..."

Content = Callable[[], bytes]  # gives the bytes of a picture, in the thread that decodes it


def check_media(media: str) -> None:
    """Fault 415 for a content type under which no picture comes."""
    kind = _kind(media)
    if kind not in (FORM, JSON, OCTETS) and not kind.startswith("image/"):
        hint = (
            f"send {FORM} with a file field, the bytes of a picture as the body under image/jpeg, image/png... or "
            f"{OCTETS}, or {JSON} with base64"
        )
        raise Fault(415, "wrong_content_type", f"Content-Type is {media[:100]!r}", hint)


def most_bytes(media: str, settings: Serve) -> int:
    """Of the body of a request for one picture."""
    kind = _kind(media)
    of_picture = _encoded(settings.max_bytes) if kind == JSON else settings.max_bytes
    return of_picture + (FORM_BYTES if kind in (FORM, JSON) else 0)


def only_picture(body: bytes, media: str, max_bytes: int) -> bytes:
    """The picture of a request for one: the field `image`, or the body itself."""
    kind = _kind(media)
    if kind == FORM:
        found = _files(parse(body, media, 1), ONE)
        if len(found) > 1:
            hint = "send one picture, or use /predict_batch"
            raise Fault(422, "repeated_field", f"the form has {len(found)} fields {ONE!r}", hint)
        return bytes(found[0].data)
    return _bytes_of(_field(body, ONE), max_bytes) if kind == JSON else body


def pictures(body: bytes, media: str, settings: Serve) -> Sequence[Content]:
    """Those of a request for many, in order: the fields `images` of a form, or the list `images` of JSON."""
    kind = _kind(media)
    if kind == FORM:
        return [functools.partial(bytes, part.data) for part in _files(parse(body, media, settings.max_pictures), MANY)]
    if kind != JSON:
        hint = f"send {FORM} with fields {MANY!r}, or {JSON} with a list {MANY!r}"
        raise Fault(415, "wrong_content_type", f"Content-Type is {media[:100]!r}", hint)
    found = _field(body, MANY)
    if not isinstance(found, list) or not found:
        raise Fault(422, "missing_field", f"{MANY!r} is not a list of pictures", "send a list of pictures in base64")
    for each in found:
        _check_text(each)  # the list itself is wrong then, and not a picture in it
    return [functools.partial(_bytes_of, each, settings.max_bytes) for each in found]


def _kind(media: str) -> str:
    return media.split(";")[0].strip().lower()


def _files(parts: list[Part], name: str) -> list[Part]:
    """The file fields called `name`, or `name[]` as PHP wants it; Fault 422 if there is none, or if one holds text."""
    found = [part for part in parts if part.name in (name, f"{name}[]")]
    if not found:
        seen = ", ".join(sorted({repr(part.name[:50]) for part in parts})) or "no field"
        raise Fault(422, "missing_field", f"the form has no field {name!r}, but {seen}", f"name the field {name!r}")
    if not all(part.is_file for part in found):
        hint = "send the file itself with a file name; an address is never fetched"
        raise Fault(422, "not_a_file", f"the field {name!r} holds text, not a file", hint)
    return found


def _field(body: bytes, name: str) -> Any:
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Fault(400, "broken_json", f"the body is not JSON: {error}", f"send {{{name!r}: ...}}") from None
    if not isinstance(values, dict) or name not in values:
        seen = ", ".join(repr(key[:50]) for key in sorted(values)[:10]) if isinstance(values, dict) else "no object"
        raise Fault(422, "missing_field", f"the JSON has no key {name!r}, but {seen or 'nothing'}", f"name it {name!r}")
    return values[name]


def _bytes_of(text: Any, max_bytes: int) -> bytes:
    """The picture that base64 text stands for, a data URL or not; Fault for what is none, or is too long."""
    _check_text(text)
    if text.startswith(DATA_URL):
        _, mark, text = text.partition(DATA_MARK)
        if not mark:
            raise Fault(422, "not_base64", "a data URL without base64", HINT)
    elif "://" in text[:20]:
        raise Fault(422, "not_a_file", "an address is never fetched", HINT)
    if len(text) > _encoded(max_bytes) * 1.03:  # with line breaks
        raise too_many_bytes(max_bytes)
    try:
        return binascii.a2b_base64(text.encode("ascii").translate(None, BETWEEN), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError):
        raise Fault(422, "not_base64", "a picture in JSON is not base64", HINT) from None


def _check_text(value: Any) -> None:
    if not isinstance(value, str):
        raise Fault(422, "not_base64", f"a picture in JSON is text, not {type(value).__name__}", HINT)


def _encoded(count: int) -> int:
    """Characters of base64 for so many bytes."""
    return 4 * -(-count // 3)
