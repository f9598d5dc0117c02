"""Download one big file: resumed where it stopped, checked against its SHA-256, named only when it is right."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import requests

from data.errors import DataError
from training.common.files import discard, file_sha256, write_text
from training.common.progress import Bar

PIECE = 1 << 16  # bytes
TIMEOUT = (10, 60)  # seconds to connect, and between two pieces
ATTEMPTS = 5  # without a byte gained
PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))  # answers that another try may mend
NETWORK = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)


class PassingError(Exception):
    """The transfer broke; what is there so far is kept for the next try."""


@dataclass(frozen=True)
class Partial:
    """`NAME.part` and, beside it, which version of the file it is the beginning of."""

    path: Path

    @property
    def note(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self, url: str) -> str | None:
        """The ETag or date to resume `url` with; None when there is nothing that may be continued."""
        try:
            note = json.loads(self.note.read_text())
        except (OSError, ValueError):
            return None
        return note["validator"] if note["url"] == url and self.size() else None

    def remember(self, url: str, response: requests.Response) -> None:
        """Note the version of a file that starts anew."""
        etag = response.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else response.headers.get("Last-Modified")  # weak ETags do not do
        write_text(self.note, json.dumps({"url": url, "validator": validator}))

    def discard(self) -> None:
        discard(self.path)
        discard(self.note)


def download(url: str, sha256: str, folder: Path, pause: float = 1.0) -> Path:
    """The file behind `url` in `folder`, with that SHA-256; taken from there when it was downloaded before.

    Raises DataError for an address that does not answer and for a wrong checksum; the wrong file is kept as
    `NAME.wrong`. `pause` is the first wait between two tries, in seconds; each further wait is twice as long.
    """
    name = PurePosixPath(unquote(urlsplit(url).path)).name or "download"
    final = folder / name
    if final.exists() and file_sha256(final) == sha256:
        return final
    folder.mkdir(parents=True, exist_ok=True)
    partial = Partial(final.with_name(name + ".part"))
    resumed = partial.size() > 0
    _transfer(url, partial, pause)
    found = file_sha256(partial.path)
    if found != sha256 and resumed:  # the beginning may stem from another version
        partial.discard()
        _transfer(url, partial, pause)
        found = file_sha256(partial.path)
    if found != sha256:
        raise _wrong(url, sha256, found, partial)
    partial.path.replace(final)
    partial.discard()
    return final


def _wrong(url: str, expected: str, found: str, partial: Partial) -> DataError:
    kept = partial.path.with_suffix(".wrong")
    partial.path.replace(kept)
    partial.discard()
    return DataError(
        f"{url} has SHA-256 {found}, expected {expected}: the file was changed or damaged on its way (kept as {kept}); "
        f"try again, or set data.sha256 if the new file is the one you want"
    )


def _transfer(url: str, partial: Partial, pause: float) -> None:
    """Fill `partial` with the whole file, through as many broken connections as bring new bytes."""
    failures = 0
    while True:
        before = partial.size()
        try:
            return _continue(url, partial)
        except (PassingError, *NETWORK) as error:
            failures = 1 if partial.size() > before else failures + 1
            if failures >= ATTEMPTS:
                reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
                raise DataError(
                    f"{url} cannot be downloaded ({reason}): check the network, then run again to resume"
                ) from None
            time.sleep(pause * 2 ** (failures - 1))
        except requests.RequestException as error:
            raise DataError(f"{url} cannot be downloaded ({error}): check data.url") from None


def _continue(url: str, partial: Partial) -> None:
    headers = {"Accept-Encoding": "identity"}
    validator = partial.validator(url)
    if validator:
        headers |= {"Range": f"bytes={partial.size()}-", "If-Range": validator}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416 and _total(response) == partial.size():
            return  # it was all there already
        start = _start(url, response, partial, validator)
        length = response.headers.get("Content-Length")
        _append(response, partial, start, None if length is None else start + int(length))


def _start(url: str, response: requests.Response, partial: Partial, validator: str | None) -> int:
    """Where the bytes of this answer belong; 0 after what was there has been given up."""
    if response.status_code == 206:
        sent = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        version = {response.headers.get("ETag"), response.headers.get("Last-Modified")}
        if sent and int(sent[1]) == partial.size() and (validator in version or version == {None}):
            return partial.size()
    if response.status_code in (206, 416):  # not the bytes that were asked for
        partial.discard()
        raise PassingError(f"the server answered a resume with {response.status_code} and other bytes")
    if response.status_code in PASSING:
        raise PassingError(f"{response.status_code} {response.reason}")
    if response.status_code != 200:
        raise DataError(f"{url} cannot be downloaded ({response.status_code} {response.reason}): check data.url")
    partial.discard()
    partial.remember(url, response)
    return 0


def _total(response: requests.Response) -> int | None:
    match = re.match(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _append(response: requests.Response, partial: Partial, start: int, total: int | None) -> None:
    name = f"download {partial.path.stem}"
    with (
        partial.path.open("ab") as file,
        Bar(desc=name, total=total, initial=start, unit="B", unit_scale=True) as progress,
    ):
        for piece in response.iter_content(PIECE):
            file.write(piece)
            progress.update(len(piece))
    if total is not None and partial.size() != total:
        raise PassingError(f"{partial.size()} of {total} bytes came")
