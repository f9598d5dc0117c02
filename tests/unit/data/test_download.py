import hashlib
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from data.errors import DataError
from data.sources.download import PIECE, download

CONTENT = bytes(range(256)) * 4000
BREAK = 4 * PIECE  # a multiple: what has come of the piece at which a connection breaks is lost
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """One file, with ranges and an ETag; breaks off or answers with an error when told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.faults: list[int] = []  # of the next answers: a status, or (from 600 up) the byte to break off at
        self.ranges: list[str | None] = []
        self.ignore_if_range, self.shift = False, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/pictures.zip?download=1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers["Range"]
        server.ranges.append(wanted)
        fault = server.faults.pop(0) if server.faults else None
        if fault and fault < 600:
            self.send_error(fault)
            return
        etag = f'"{hashlib.sha256(server.content).hexdigest()[:8]}"'
        start = self._start(wanted, etag)
        if start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        self.wfile.write(server.content[start:fault])

    def _start(self, wanted: str | None, etag: str) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        if match and (self.headers["If-Range"] == etag or self.server.ignore_if_range):
            return int(match[1]) + self.server.shift
        return 0

    def log_message(self, *arguments: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def get(server: Server, folder: Path, sha256: str = SHA256) -> Path:
    return download(server.url, sha256, folder, pause=0.01)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_downloads_once(server: Server, tmp_path: Path) -> None:
    path = get(server, tmp_path / "new")
    assert path.name == "pictures.zip"
    assert path.read_bytes() == CONTENT
    assert get(server, tmp_path / "new") == path
    assert server.ranges == [None]
    assert names(tmp_path / "new") == {"pictures.zip"}


def test_resumes_where_the_connection_broke(server: Server, tmp_path: Path) -> None:
    server.faults = [BREAK, 2 * BREAK]
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={BREAK}-", f"bytes={2 * BREAK}-"]


def test_a_later_run_resumes(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be downloaded .*run again to resume"):
        break_for_good(server, tmp_path)
    assert names(tmp_path) == {"pictures.zip.part", "pictures.zip.part.json"}
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] == f"bytes={BREAK}-"


def break_for_good(server: Server, folder: Path) -> None:
    """Leave the first BREAK bytes as `.part`, as a run does that was ended or gave up."""
    server.faults = [BREAK] + [503] * 5
    get(server, folder)


def test_starts_again_when_the_file_has_changed(server: Server, tmp_path: Path) -> None:
    server.content = b"old" * 200_000
    with pytest.raises(DataError):
        break_for_good(server, tmp_path)
    server.content = CONTENT
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_starts_again_when_the_server_continues_a_changed_file(server: Server, tmp_path: Path) -> None:
    server.content, server.ignore_if_range = b"old" * 200_000, True
    with pytest.raises(DataError):
        break_for_good(server, tmp_path)
    server.content = CONTENT
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges[-2:] == [f"bytes={BREAK}-", None]


def test_does_not_believe_a_wrong_range(server: Server, tmp_path: Path) -> None:
    server.faults, server.shift = [BREAK], 7
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={BREAK}-", None]


def test_takes_a_part_that_is_whole_already(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        break_for_good(server, tmp_path)
    (tmp_path / "pictures.zip.part").write_bytes(CONTENT)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges[-1] == f"bytes={len(CONTENT)}-"


def test_a_wrong_checksum_never_gets_the_final_name(server: Server, tmp_path: Path) -> None:
    expected = "1" * 64
    with pytest.raises(DataError) as caught:
        get(server, tmp_path, expected)
    assert all(part in str(caught.value) for part in (server.url, expected, SHA256, "pictures.zip.wrong"))
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == {"pictures.zip.wrong"}
    assert get(server, tmp_path).name == "pictures.zip"


def test_a_file_changed_in_the_cache_is_downloaded_again(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path).write_bytes(b"changed")
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_tries_again_after_a_passing_error(server: Server, tmp_path: Path) -> None:
    server.faults = [503, 429]
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_gives_up_at_once_on_a_missing_file(server: Server, tmp_path: Path) -> None:
    server.faults = [404] * 10
    with pytest.raises(DataError, match=r"404 Not Found.*check data\.url"):
        get(server, tmp_path)
    assert len(server.ranges) == 1


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/a.zip", "http://127.0.0.1:1/a.zip"])
def test_names_an_address_that_does_not_answer(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match=f"{url} cannot be downloaded") as caught:
        download(url, SHA256, tmp_path, pause=0.01)
    assert "\n" not in str(caught.value)
