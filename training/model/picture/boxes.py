"""What a HEIC or AVIF file makes its decoder decode, read from its boxes (ISO/IEC 14496-12, 23008-12, AV1 2.2).

A picture in it may be a grid of others, each of a size of its own, cropped to a few pixels at the end. libheif holds a
decoder to the size that the box `ispe` states; libavif does not, so the header in the AV1 data itself is read as well.
Only the standard library is imported.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

MOST_BOXES = 20_000  # an iPhone's picture has about 150
DEEPEST = 6  # pictures made of pictures; a grid of tiles is 2
MOST_VISITS = 4096  # of pictures: a 200-megapixel phone writes 800 tiles
PARTS = (b"dimg", b"auxl")  # references to pictures that are decoded as parts: tiles, transparency
SEQUENCE_HEADER = 1  # an OBU of AV1


class BoxError(ValueError):
    """The boxes do not fit together, or are those of a film."""


@dataclass(frozen=True)
class Needed:
    """`largest`: pixels of the largest picture that is decoded; `pixels`: of all together, with those made of others;
    `primaries` and `transfer`: of its colours (ITU-T H.273); those of sRGB where it states none."""

    largest: int
    pixels: int
    primaries: int
    transfer: int


@dataclass
class _Items:
    """What the box `meta` says of the pictures in a file, by their numbers."""

    primary: int = 0
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    of_item: dict[int, list[int]] = field(default_factory=dict)
    parts: dict[int, list[int]] = field(default_factory=dict)
    extents: dict[int, list[tuple[bool, int, int]]] = field(default_factory=dict)
    stored: bytes = b""

    def properties_of(self, item: int, kind: bytes) -> list[bytes]:
        chosen = (self.properties[index - 1] for index in self.of_item.get(item, ()) if index)
        return [body for name, body in chosen if name == kind]


class _Reader:
    """Big-endian numbers, one after another."""

    def __init__(self, data: bytes, place: int = 0) -> None:
        self.data, self.place = data, place

    def number(self, size: int) -> int:
        """The next `size` bytes."""
        if self.place + size > len(self.data):
            raise BoxError("it ends too early")
        self.place += size
        return int.from_bytes(self.data[self.place - size : self.place], "big")


def needed(data: bytes) -> Needed:
    """What is decoded to show the picture; BoxError when that cannot be said."""
    try:
        items = _items(data)
        visited = _visited(items)
        size = {item: _size(data, items, item) for item in set(visited)}
    except (IndexError, struct.error) as error:
        raise BoxError(str(error)) from None
    colours = [body for body in items.properties_of(items.primary, b"colr") if body[:4] == b"nclx"]
    primaries, transfer = struct.unpack(">HH", colours[0][4:8]) if colours else (1, 13)
    return Needed(max(size.values()), sum(size[item] for item in visited), primaries, transfer)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each box in `data`."""
    place = 0
    for _ in range(MOST_BOXES):
        if place + 8 > len(data):
            return
        size, kind = struct.unpack_from(">I4s", data, place)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, place + 8)[0], 16
        size = size or len(data) - place
        if size < head or place + size > len(data):
            raise BoxError(f"the box {kind!r} is longer than what it lies in")
        yield kind, data[place + head : place + size]
        place += size
    raise BoxError("it has too many boxes")


def _items(data: bytes) -> _Items:
    found = _Items()
    top: dict[bytes, bytes] = {}
    for kind, body in _boxes(data):
        if kind == b"moov":
            raise BoxError("it holds a film or an animation")
        if kind in (b"meta", b"ftyp"):
            top.setdefault(kind, body)
    for kind, body in _boxes(top.get(b"meta", b"")[4:]):
        if kind == b"pitm":
            found.primary = _Reader(body, 4).number(4 if body[0] else 2)
        elif kind == b"iprp":
            _read_properties(body, found)
        elif kind == b"iref":
            _read_references(body, found)
        elif kind == b"iloc":
            _read_locations(body, found)
        elif kind == b"idat":
            found.stored = body
    return found


def _read_properties(body: bytes, found: _Items) -> None:
    for kind, inside in _boxes(body):
        if kind == b"ipco":
            found.properties += _boxes(inside)
        elif kind == b"ipma":
            reader, wide = _Reader(inside, 4), inside[3] & 1
            for _ in range(reader.number(4)):
                item = reader.number(4 if inside[0] else 2)
                numbers = [reader.number(2 if wide else 1) for _ in range(reader.number(1))]
                found.of_item.setdefault(item, []).extend(number & (0x7FFF if wide else 0x7F) for number in numbers)


def _read_references(body: bytes, found: _Items) -> None:
    size = 4 if body[0] else 2
    for kind, inside in _boxes(body[4:]):
        reader = _Reader(inside)
        origin = reader.number(size)
        targets = [reader.number(size) for _ in range(reader.number(2))]
        if kind == b"dimg":
            found.parts.setdefault(origin, []).extend(targets)
        elif kind == b"auxl":  # transparency points at what it belongs to
            for target in targets:
                found.parts.setdefault(target, []).append(origin)


def _read_locations(body: bytes, found: _Items) -> None:
    version, reader, count = body[0], _Reader(body, 4), 0
    sizes = reader.number(2)
    offset_size, length_size, base_size, index_size = ((sizes >> shift) & 15 for shift in (12, 8, 4, 0))
    for _ in range(reader.number(4 if version == 2 else 2)):
        item = reader.number(4 if version == 2 else 2)
        method = reader.number(2) & 15 if version else 0
        reader.number(2)
        base = reader.number(base_size)
        for _ in range(reader.number(2)):
            count += 1
            if count > MOST_BOXES:
                raise BoxError("it is in too many pieces")
            if version:
                reader.number(index_size)
            extent = (method == 1, base + reader.number(offset_size), reader.number(length_size))
            found.extents.setdefault(item, []).append(extent)


def _visited(items: _Items) -> list[int]:
    """The pictures that are decoded to show the primary one, as often as they are."""
    seen, todo = [], [(items.primary, 0)]
    while todo:
        item, depth = todo.pop()
        seen.append(item)
        if depth > DEEPEST or len(seen) > MOST_VISITS:
            raise BoxError("it is made of too many pictures")
        todo += [(part, depth + 1) for part in items.parts.get(item, ())]
    return seen


def _size(data: bytes, items: _Items, item: int) -> int:
    """Pixels of a picture, of the larger of its two sizes where it states two."""
    stated = items.properties_of(item, b"ispe")
    if not stated:
        raise BoxError("a picture in it has no size")
    pixels: int = max(width * height for width, height in (struct.unpack(">4xII", body) for body in stated))
    if items.properties_of(item, b"av1C"):
        pixels = max([pixels, *_av1_sizes(_content(data, items, item))])
    return pixels


def _content(data: bytes, items: _Items, item: int) -> bytes:
    extents = items.extents.get(item, [])
    if sum(length for _, _, length in extents) > len(data):
        raise BoxError("its parts overlap")
    pieces = []
    for stored, offset, length in extents:
        source = items.stored if stored else data
        pieces.append(source[offset : offset + length if length else len(source)])
    return b"".join(pieces)


def _av1_sizes(stream: bytes) -> Iterator[int]:
    """Pixels that each sequence header in an AV1 stream allows (AV1 5.3 to 5.5)."""
    place = 0
    for _ in range(MOST_BOXES):
        if place >= len(stream):
            return
        head = stream[place]
        place += 2 if head & 4 else 1
        size = len(stream) - place
        if head & 2:
            size = 0
            for shift in range(0, 56, 7):
                byte = stream[place]
                size |= (byte & 127) << shift
                place += 1
                if byte < 128:
                    break
        if (head >> 3) & 15 == SEQUENCE_HEADER:
            yield _sequence_size(stream[place : place + size])
        place += size
    raise BoxError("its AV1 data is in too many pieces")


def _sequence_size(header: bytes) -> int:
    bits, place = int.from_bytes(header, "big"), 8 * len(header)

    def read(count: int) -> int:
        nonlocal place
        place -= count
        if place < 0:
            raise BoxError("an AV1 header ends too early")
        return (bits >> place) & ((1 << count) - 1)

    read(4)  # profile, and whether it is a still picture
    if read(1):
        read(5)
    else:
        if read(1):
            raise BoxError("it is timed like a film")
        delays = read(1)
        for _ in range(read(5) + 1):
            read(12)
            if read(5) > 7:
                read(1)
            if delays and read(1):
                read(4)
    width_bits, height_bits = read(4) + 1, read(4) + 1
    width, height = (int(read(count)) + 1 for count in (width_bits, height_bits))
    return width * height
