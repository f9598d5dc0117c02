"""Forms from bytes: what browsers and libraries send, and what attackers do."""

from __future__ import annotations

import random

import pytest

from training.serving.api.multipart import SPARE_PARTS, parse
from training.serving.errors import Fault

MEDIA = 'multipart/form-data; boundary="b"'


def part(head: str, data: bytes) -> bytes:
    return b"--b\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + data + b"\r\n"


def test_files_and_text_in_order() -> None:
    body = part('name="image"; filename="a b.jpg"', b"\r\n--bb\x00") + part("name=note", b"hello") + b"--b--\r\n"
    image, note = parse(body, MEDIA, 1)
    assert (image.name, image.filename, bytes(image.data)) == ("image", "a b.jpg", b"\r\n--bb\x00")
    assert (note.name, note.filename, bytes(note.data)) == ("note", None, b"hello")


def test_other_headers_of_a_part_are_ignored() -> None:
    body = b'--b\r\nContent-Type: image/png\r\nContent-Disposition: form-data; name="x"\r\nX-Y: z\r\n\r\nd\r\n--b--\r\n'
    assert [(found.name, bytes(found.data)) for found in parse(body, MEDIA, 1)] == [("x", b"d")]


@pytest.mark.parametrize(
    ("body", "media"),
    [
        (b"", MEDIA),
        (b"hello", MEDIA),
        (part("name=x", b"d"), MEDIA),
        (part("name=x", b"d") + b"--b", MEDIA),
        (part("name=x", b"d") + b"--b--\r\n", "multipart/form-data"),
        (part("name=x", b"d") + b"--b--\r\n", "multipart/form-data; boundary="),
        (b"--b\r\nno colon\r\n\r\nd\r\n--b--\r\n", MEDIA),
        (b"--b\r\n" + b"X: y\r\n" * 100 + b"\r\nd\r\n--b--\r\n", MEDIA),
    ],
)
def test_a_broken_form_is_a_fault_of_the_client(body: bytes, media: str) -> None:
    with pytest.raises(Fault) as caught:
        parse(body, media, 1)
    assert (caught.value.status, caught.value.code) == (400, "broken_multipart")


def test_the_number_of_parts_is_bounded() -> None:
    allowed = part("name=x", b"") * (2 + SPARE_PARTS) + b"--b--\r\n"
    assert len(parse(allowed, MEDIA, 2)) == 2 + SPARE_PARTS
    with pytest.raises(Fault, match="more than 10 fields"):
        parse(part("name=x", b"") + allowed, MEDIA, 2)


def test_a_mutated_form_is_parsed_or_refused_but_never_anything_else() -> None:
    good = part('name="image"; filename="a"', bytes(range(256))) + part("name=x", b"") + b"--b--\r\n"
    chance = random.Random(1)
    refusals = []
    for _ in range(3000):
        body = bytearray(good)
        for _ in range(chance.randint(1, 8)):
            body[chance.randrange(len(body))] = chance.choice(b"\r\n-b: \x00")
        try:
            parse(bytes(body[: chance.randint(0, len(body))]), MEDIA, 1)
        except Fault as fault:
            refusals.append(fault.status)
    assert set(refusals) <= {400, 422}
    assert len(refusals) > 1000
