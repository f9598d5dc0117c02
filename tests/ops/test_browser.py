"""The pages /ui, /ui/model and /docs in Debian's chromium, against a real server.

The model knows six classes with awkward names. What a page asks other hosts for, or throws, fails the test.
`SCREENSHOTS_OF=http://127.0.0.1:3000 python -m pytest tests/ops/test_browser.py -k screenshot` makes the README's
pictures, of a service that serves a champion of photographs (PHOTOS names their folder).
"""

from __future__ import annotations

import io
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import (
    Browser,
    BrowserContext,
    FileChooser,
    FilePayload,
    Locator,
    Page,
    expect,
    sync_playwright,
)

from tests import parts
from tests.service.server import ROOT, Server, copy_project, make_champion, promotion_of
from tests.tiny import tiny_model_folder, tiny_picture
from training.evaluation import metrics
from training.model import pin as pin_file
from training.model.classifier import Classifier

pytestmark = pytest.mark.needs("chromium")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
CLASSES = ("cat", "<b>dog</b>", "R&D", '"quoted"', "Žlutý kůň", "six")
SHARPNESS = 90.0  # of the tiny model: it is sure of clean pictures
SCREENSHOTS_OF = os.environ.get("SCREENSHOTS_OF")
SCREENSHOTS = ROOT / ".github/screenshots"
PATIENCE_MS = 20_000  # with a machine that does much else
LARGEST = 200_000  # bytes of a screenshot that is committed
DROP = """([kind, files]) => {
  const data = new DataTransfer();
  for (const [name, type, bytes] of files) data.items.add(new File([new Uint8Array(bytes)], name, { type }));
  const event = kind === "paste"
    ? new ClipboardEvent(kind, { clipboardData: data, bubbles: true })
    : new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
  document.querySelector("#drop").dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose champion has a full card, and a record of how it was promoted."""
    project = copy_project(tmp_path_factory.mktemp("browsed"))
    pin = make_champion(project, project / "home", classes=CLASSES, sharpness=SHARPNESS, metrics=figures(project))
    check = {"name": "accuracy", "passed": True, "figure": "0.9", "limit": "at least <0.6>"}
    names = {"version": "3", "model_sha256": pin.model_sha256, "promoted": "2026-01-02", "promoted_because": "a reason"}
    former = names | {"version": "2", "accuracy": "0.8", "rolled_back": "2026-01-02 it confused horses"}
    record = promotion_of(pin, checks=[check]) | {"champion": names | {"rolled_back": None}, "former": [former]}
    (project / pin_file.PROMOTION_FILE).write_text(json.dumps(record))
    return project


def figures(project: Path) -> dict[str, Any]:
    """What `evaluate` would say of the tiny model on noisy pictures."""
    classifier = Classifier(tiny_model_folder(project / "models/model", CLASSES, sharpness=SHARPNESS))
    labels = np.arange(60) % len(CLASSES)
    pictures = [tiny_picture(int(label), 900 + seed, noise=0.1) for seed, label in enumerate(labels)]
    probabilities = classifier.predict_bytes(pictures).astype(float)
    found = metrics.describe(probabilities / probabilities.sum(1, keepdims=True), labels, CLASSES)
    return found | {"behaviour": {"flip": {"agree": 0.9875}}}


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[Server]:
    running = Server.start(project, project / "home", SERVE_DRAIN="0")
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=parts.chromium(), args=ARGUMENTS)
        yield browser
        browser.close()


def opened(context: BrowserContext, url: str) -> Iterator[Page]:
    """A page at `url`; in the end nothing was asked of another host and no script failed."""
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    asked: list[str] = []
    failed: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.on("console", lambda said: failed.append(said.text) if "Content Security Policy" in said.text else None)
    page.goto(url)
    yield page
    host = re.match(r"https?://[^/]+/", url)
    assert host
    assert not [one for one in asked if not one.startswith((host[0], "blob:", "data:"))]
    assert not failed
    context.close()


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    yield from opened(browser.new_context(), f"{server.url}/ui")


@pytest.fixture
def phone(browser: Browser, server: Server) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 320, "height": 640}, color_scheme="dark", has_touch=True)
    yield from opened(context, f"{server.url}/ui")


def picture(label: int = 0, name: str = "cat.png") -> FilePayload:
    """A file for the picker that the tiny model is sure of."""
    return {"name": name, "mimeType": "image/png", "buffer": tiny_picture(label, 7, noise=0.0)}


def results(page: Page) -> Locator:
    return page.locator("#results > li")


def sent(page: Page, *files: FilePayload) -> Locator:
    """Choose files in the picker; the first result, once every one is answered."""
    before = results(page).count()
    page.set_input_files("#picker", list(files))
    expect(results(page)).to_have_count(before + len(files))
    expect(page.locator(".waiting")).to_have_count(0)
    return results(page).first


def violations(page: Page) -> list[str]:
    """What axe-core finds that is serious or critical."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']} {[node['target'] for node in one['nodes']]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def test_a_chosen_picture_is_answered_with_all_there_is_to_say(page: Page) -> None:
    result = sent(page, picture())
    expect(result.get_by_role("heading")).to_have_text("Cat")
    expect(result.locator(".share")).to_have_text(re.compile(r"^confidence (over )?\d+\.\d\s%$"))
    expect(result.locator(".bars li")).to_have_count(6)
    expect(result.locator(".facts")).to_have_text(re.compile(r"Answered in \d+\sms by cats-vs-dogs version 3\."))
    expect(result.get_by_role("link", name="cats-vs-dogs version 3")).to_have_attribute("href", "ui/model")
    expect(page.get_by_role("status")).to_contain_text("cat.png: Cat")


def test_several_pictures_are_dropped_and_one_is_pasted(page: Page) -> None:
    files = [[f"{label}.png", "image/png", list(tiny_picture(label, 7, noise=0.0))] for label in (0, 1, 2)]
    page.evaluate(DROP, ["dragenter", files])
    expect(page.locator("#drop")).to_have_class(re.compile("over"))
    page.evaluate(DROP, ["drop", files])
    expect(page.locator("#drop")).not_to_have_class(re.compile("over"))
    expect(page.locator("#results h3")).to_have_text(["Cat", "<b>dog</b>", "R&D"])
    page.evaluate(DROP, ["paste", files[:1]])
    expect(page.locator("#results h3")).to_have_text(["Cat", "Cat", "<b>dog</b>", "R&D"])
    page.get_by_role("button", name="Clear all").click()
    expect(page.locator("#answers")).to_be_hidden()


def test_a_corrupt_file_says_so_and_the_others_are_answered(page: Page) -> None:
    broken: FilePayload = {"name": "broken.png", "mimeType": "image/png", "buffer": tiny_picture(0, 7)[:200]}
    text: FilePayload = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    sent(page, broken, text, picture())
    expect(page.locator("#results h3")).to_have_text(["No answer", "No answer", "Cat"])
    expect(results(page).nth(0)).to_contain_text("The picture cannot be decoded")
    expect(results(page).nth(1)).to_contain_text("Send one of JPEG, PNG, WEBP, GIF, BMP, TIFF.")
    expect(results(page).nth(1)).to_contain_text("not_an_image")


def test_not_sure_comes_with_its_reason_and_asks_what_it_is(page: Page) -> None:
    grey = io.BytesIO()
    Image.new("RGB", (40, 40), (128, 128, 128)).save(grey, "PNG")
    result = sent(page, {"name": "grey.png", "mimeType": "image/png", "buffer": grey.getvalue()})
    expect(result.get_by_role("heading")).to_have_text("Not sure")
    expect(result.locator(".reason")).to_contain_text("This model answers from 60.0 % on")
    expect(result.get_by_role("group")).to_contain_text("Do you know what it is?")


def test_the_heat_map_fades(page: Page) -> None:
    result = sent(page, picture())
    fade = result.get_by_role("slider")
    heat = result.locator("canvas")
    expect(heat).to_be_visible()
    drawn = heat.evaluate("c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size")
    assert drawn > 10
    fade.fill("0")
    expect(heat).to_have_css("opacity", "0")
    fade.press("ArrowRight")
    expect(heat).to_have_css("opacity", "0.01")


def test_the_heat_map_lies_over_the_square_that_the_network_sees(page: Page) -> None:
    wide = io.BytesIO()
    Image.open(io.BytesIO(tiny_picture(0, 7, side=64))).resize((128, 64)).save(wide, "PNG")
    result = sent(page, {"name": "wide.png", "mimeType": "image/png", "buffer": wide.getvalue()})
    expect(result.locator("canvas")).to_be_visible()
    whole, seen = result.locator("img").bounding_box(), result.locator("canvas").bounding_box()
    assert whole
    assert seen
    assert seen["width"] == pytest.approx(whole["width"] / 2, abs=1)
    assert seen["x"] - whole["x"] == pytest.approx(whole["width"] / 4, abs=1)
    assert seen["height"] == pytest.approx(whole["height"], abs=1)


def test_right_and_wrong_are_noted_and_can_be_changed(page: Page, server: Server) -> None:
    result = sent(page, picture())
    result.get_by_role("button", name="Right").click()
    expect(result.locator(".outcome")).to_contain_text("Thank you: noted as cat.")
    result.get_by_role("button", name="Change it").click()
    result.get_by_label("Wrong, it is").select_option("R&D")
    result.get_by_role("button", name="Send").click()
    expect(result.locator(".outcome")).to_contain_text("noted as R&D")
    page.goto(f"{server.url}/ui/model")
    expect(page.locator("#live")).to_contain_text("answer people judged")


def test_everything_is_done_with_the_keyboard_alone(page: Page) -> None:
    def choose(chooser: FileChooser) -> None:
        chooser.set_files(picture())

    page.on("filechooser", choose)  # from now on: it takes a moment to be in force
    expect(page.get_by_role("button", name="Sample 1")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Choose pictures")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#results h3")).to_have_text("Cat")
    walk_to(page, page.get_by_role("button", name="Sample 2"))
    page.keyboard.press("Enter")
    expect(results(page)).to_have_count(2)
    result = results(page).last
    walk_to(page, result.get_by_role("slider"))
    page.keyboard.press("Home")
    expect(result.locator("canvas")).to_have_css("opacity", "0")
    walk_to(page, result.get_by_role("button", name="Right"))
    page.keyboard.press("Enter")
    expect(result.locator(".outcome")).to_be_focused()


def walk_to(page: Page, target: Locator) -> None:
    """Press Tab until `target` has the focus."""
    expect(target).to_be_visible()
    for _ in range(40):
        page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"the keyboard does not reach {target}")


def test_a_narrow_screen_shows_all_without_scrolling_sideways(phone: Page, server: Server) -> None:
    sent(phone, picture(), picture(1, "a-very-long-name-of-a-file-without-any-place-to-break-it-into-lines.png"))
    expect(phone.get_by_text("Take a photograph")).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 320
    assert violations(phone) == []
    phone.goto(f"{server.url}/ui/model")
    expect(phone.get_by_role("heading", name="The gate: passed")).to_be_visible()
    assert phone.evaluate("document.documentElement.scrollWidth") <= 320
    assert violations(phone) == []


def test_axe_finds_nothing_serious_on_the_page_with_answers(page: Page) -> None:
    sent(page, picture(), {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    expect(results(page).first.get_by_role("slider")).to_be_visible()
    assert violations(page) == []


def test_the_model_page_draws_the_whole_card(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/ui/model")
    expect(page.get_by_role("heading", level=1)).to_have_text("cats-vs-dogs version 3")
    for name in ("What it mixes up", "Whether its confidence can be believed", "Class by class", "Its worst mistakes"):
        expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.get_by_role("cell", name="at least <0.6>")).to_be_visible()
    expect(page.locator("#former")).to_contain_text("it confused horses")
    expect(page.locator("#lineage li")).to_have_count(9)
    expect(page.get_by_role("row", name="behaviour: flip: agree 0.9875")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("Reliability"))).to_be_visible()
    mistake = page.locator("#mistakes img").first
    expect(mistake).to_have_js_property("complete", True)
    assert mistake.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    card = page.request.get(f"{server.url}/model").json()
    matrix = [int(cell) for cell in page.locator("#confusion td b").all_inner_texts()]
    assert matrix == np.ravel(card["metrics"]["confusion_matrix"]).tolist()
    recall = page.locator("#classes tbody tr td:nth-child(3)")
    for down in (False, True):
        page.locator("#classes").get_by_role("button", name="recall").click()
        shown = [float(text.split()[0].rstrip("%")) for text in recall.all_text_contents()]
        assert shown == sorted(shown, reverse=down)
    assert len(set(shown)) > 1
    assert violations(page) == []


def test_the_service_goes_down_and_comes_back_with_a_key(browser: Browser, project: Path, tmp_path: Path) -> None:
    """Another model and a key that is needed now: the page tells what happens, and no picture is lost."""
    folder = tiny_model_folder(tmp_path / "model")
    first = Server.start(project, tmp_path / "home", SERVE_DRAIN="0", MODEL_PATH=str(folder.path))
    opening = opened(browser.new_context(), f"{first.url}/ui")
    page = next(opening)
    sent(page, picture())
    results(page).first.get_by_role("button", name="Wrong, it is dog").click()
    expect(results(page).first.locator(".outcome")).to_contain_text("noted as dog")
    assert first.stop() == 0

    page.set_input_files("#picker", [picture(1, "dog.png")])
    expect(page.get_by_role("alert")).to_have_text(re.compile("The service cannot be reached"))
    again = Server.start(
        project, tmp_path / "home", first.port, SERVE_DRAIN="0", MODEL_PATH=str(folder.path), API_KEYS="secret"
    )
    try:
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("answers only with an API key")
        expect(page.locator("#notice")).to_be_hidden()
        assert violations(page) == []
        page.get_by_label("Key", exact=True).fill("wrong")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("That key was not accepted.")
        page.get_by_label("Key", exact=True).fill("secret")
        page.keyboard.press("Enter")
        expect(page.locator("#results h3")).to_have_text(["Dog", "Cat"])
        page.reload()
        sent(page, picture())
        expect(page.get_by_role("button", name="Sample 1")).to_be_visible()
    finally:
        assert again.stop() == 0
    next(opening, None)


def test_swagger_asks_no_other_host_and_sends_a_picture(browser: Browser, server: Server, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(tiny_picture(0, 7, noise=0.0))
    for page in opened(browser.new_context(), f"{server.url}/docs"):
        page.locator("#operations-default-classify_one_picture .opblock-summary-control").click()
        page.get_by_role("button", name="Try it out").click()
        page.set_input_files("input[type=file]", tmp_path / "cat.png")
        page.get_by_role("button", name="Execute").click()
        expect(page.locator(".live-responses-table .response .response-col_status")).to_contain_text("200")
        expect(page.locator(".live-responses-table")).to_contain_text('"label": "cat"')


@pytest.mark.parametrize(
    ("name", "scheme", "width", "pictures"), [("page", "light", 1200, 2), ("phone", "dark", 390, 1)]
)
def test_screenshots_of_answers(
    browser: Browser, target: tuple[str, Path], name: str, scheme: Any, width: int, pictures: int
) -> None:
    url, folder = target
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    for page in opened(context, f"{url}/ui"):
        expect(page.get_by_role("button", name="Sample 2")).to_be_visible()
        sent(page, *photographs(pictures))
        expect(page.get_by_role("slider")).to_have_count(pictures)
        keep(page, folder / f"{name}.jpg", full_page=True)


def test_screenshot_of_the_model(browser: Browser, target: tuple[str, Path]) -> None:
    url, folder = target
    for page in opened(browser.new_context(viewport={"width": 1200, "height": 1500}), f"{url}/ui/model"):
        expect(page.get_by_role("heading", name="Class by class")).to_be_visible()
        keep(page, folder / "model.jpg")


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """Which service is shown, and where its pictures go: those of the tiny model into a temporary folder."""
    if SCREENSHOTS_OF:
        SCREENSHOTS.mkdir(exist_ok=True)
        return SCREENSHOTS_OF, SCREENSHOTS
    return request.getfixturevalue("server").url, tmp_path


def photographs(count: int) -> list[FilePayload]:
    """For the README, of a dog and a cat; else drawn ones."""
    if not SCREENSHOTS_OF:
        return [picture(label) for label in range(count)]
    folder = parts.photographs()
    assert folder is not None, "screenshots need photographs: set PHOTOS to their folder"
    names = ("test/dogs/dog.3030.jpg", "test/cats/cat.3019.jpg")
    return [
        {"name": Path(name).name, "mimeType": "image/jpeg", "buffer": (folder / name).read_bytes()}
        for name in names[:count]
    ]


def keep(page: Page, path: Path, full_page: bool = False) -> None:
    """A screenshot once pictures are decoded; it shows something and is fit for a repository."""
    deadline = time.monotonic() + 20  # asked from here: the page's policy forbids what wait_for_function does
    while not page.evaluate("[...document.images].every((image) => image.complete)"):
        assert time.monotonic() < deadline
        page.wait_for_timeout(50)
    page.screenshot(path=path, type="jpeg", quality=80, full_page=full_page)
    assert np.asarray(Image.open(path)).std() > 5
    assert path.stat().st_size < LARGEST
