"""The pages in front of another application, without a server."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse

from tests.tiny import tiny_model_folder
from training.model.folder import ModelFolder, write_sums
from training.serving import settings
from training.serving.api.edge import Edge
from training.serving.api.pages import FOLDER, Pages
from training.serving.connections.drain import Drain

SETTINGS = settings.load(Path(__file__).parents[3], {})
KEY = {"X-API-Key": "first"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return tiny_model_folder(tmp_path_factory.mktemp("folder") / "model")


@pytest.fixture
def pages(folder: ModelFolder) -> Pages:
    return Pages(PlainTextResponse("behind the pages"), folder)


def get(app: Pages, path: str, keys: tuple[bytes, ...] = (), /, **headers: str) -> httpx.Response:
    """The answer of the pages behind the edge, as service.py puts them together."""
    around = Edge(app, SETTINGS, {"/health", *app.paths}, keys, "7", Drain(0))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(around), base_url="http://test") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(ask())


def test_every_address_of_the_pages_is_there_and_others_go_on(pages: Pages) -> None:
    assert {"/ui", "/ui/model", "/ui/files/style.css", "/ui/samples/0.png", "/ui/mistakes/00.jpg"} <= pages.paths
    for path in pages.paths:
        answer = get(pages, path)
        assert answer.status_code == 200, path
        assert answer.headers["X-Model-Version"] == "7"
    assert get(pages, "/health").text == "behind the pages"


@pytest.mark.parametrize("path", ["", "files/", "files/index.html", "files/..%2fpages.py", "samples/9.png"])
def test_nothing_else_is_served(pages: Pages, path: str) -> None:
    assert get(pages, f"/ui/{path}").status_code == 404


def test_pages_may_load_only_what_is_theirs(pages: Pages) -> None:
    for path in ("/ui", "/ui/model"):
        answer = get(pages, path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert not re.findall(r"(?:https?:)?//[a-z]|<script>|<style>| style=| on[a-z]+=", answer.text)


def test_what_pages_and_modules_name_exists() -> None:
    for page in FOLDER.glob("*.html"):
        for name in re.findall(r'files/([\w.-]+)"', page.read_text()):
            assert (FOLDER / name).is_file(), name
    for module in FOLDER.glob("*.js"):
        for name in re.findall(r'from "\./([\w.-]+)"', module.read_text()):
            assert (FOLDER / name).is_file(), name


def test_no_module_turns_text_into_markup() -> None:
    for module in FOLDER.glob("*.js"):
        assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", module.read_text())


def test_a_file_is_sent_again_only_when_it_changed(pages: Pages) -> None:
    first = get(pages, "/ui/files/style.css")
    assert first.headers["Cache-Control"] == "no-cache"
    again = get(pages, "/ui/files/style.css", **{"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert not again.content


def test_text_travels_compressed_and_pictures_as_they_are(pages: Pages, folder: ModelFolder) -> None:
    for path in ("/ui", "/ui/files/style.css"):
        assert get(pages, path).headers["Content-Encoding"] == "gzip"
    picture = get(pages, "/ui/samples/0.png")
    assert "Content-Encoding" not in picture.headers
    assert picture.headers["Content-Type"] == "image/png"
    assert picture.content == (folder.path / "self_check/0.png").read_bytes()


def test_pictures_of_the_data_need_the_key_and_pages_do_not(pages: Pages) -> None:
    keys = (b"first",)
    for path in ("/ui", "/ui/model", "/ui/files/try.js"):
        assert get(pages, path, keys).status_code == 200
    for path in ("/ui/samples/0.png", "/ui/mistakes/00.jpg"):
        assert get(pages, path, keys).status_code == 401
        assert get(pages, path, keys, **KEY).status_code == 200


def test_a_folder_from_before_there_were_mistakes_has_pages_too(tmp_path: Path) -> None:
    old = tiny_model_folder(tmp_path / "old")
    card = {key: value for key, value in old.card.items() if key != "mistakes"}
    (old.path / "model_card.json").write_text(json.dumps(card))
    write_sums(old.path)
    pages = Pages(PlainTextResponse("behind"), ModelFolder.open(old.path))
    assert not [path for path in pages.paths if path.startswith("/ui/mistakes")]
    assert get(pages, "/ui/model").status_code == 200
