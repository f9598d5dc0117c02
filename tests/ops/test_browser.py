"""The pages /ui, /ui/model and /docs in Debian's chromium, against a real server.

The model knows six classes with awkward names. What a page asks other hosts for, or throws, fails the test.
`SCREENSHOTS_OF=http://127.0.0.1:3000 python -m pytest tests/ops/test_browser.py -k screenshot` makes the README's
pictures, of a service that serves a champion of photographs (PHOTOS names their folder).
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
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
from tests.service.pictures import plain
from tests.service.server import ROOT, Server, copy_project, make_champion, promotion_of
from tests.tiny import good_behaviour, tiny_model_folder, tiny_picture
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
OOD = {"all": 0.9, "noise": 0.8, "screen_shot": 0.875}
SHARPNESS = 90.0  # of the tiny model: it is sure of clean pictures
SCREENSHOTS_OF = os.environ.get("SCREENSHOTS_OF")
SCREENSHOTS = ROOT / ".github/screenshots"
PATIENCE_MS = 20_000  # with a machine that does much else
LARGEST = 200_000  # bytes of a screenshot that is committed
SHIFTS = """window.shift = 0;
const add = (each) => { if (!each.hadRecentInput) window.shift += each.value; };
new PerformanceObserver((list) => list.getEntries().forEach(add)).observe({ type: "layout-shift", buffered: true });"""
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
    record = promotion_of(pin, checks=[check], limits={"min_invariance": 0.97})
    record |= {"champion": names | {"rolled_back": None}, "former": [former]}
    (project / pin_file.PROMOTION_FILE).write_text(json.dumps(record))
    return project


def figures(project: Path) -> dict[str, Any]:
    """What `evaluate` would say of the tiny model on noisy pictures."""
    classifier = Classifier(tiny_model_folder(project / "models/model", CLASSES, sharpness=SHARPNESS))
    labels = np.arange(60) % len(CLASSES)
    pictures = [tiny_picture(int(label), 900 + seed, noise=0.1) for seed, label in enumerate(labels)]
    probabilities = classifier.predict_bytes(pictures).astype(float)
    found = metrics.describe(probabilities / probabilities.sum(1, keepdims=True), labels, CLASSES)
    caught = {"value": 0.875, "interval": [0.64, 0.97]}
    strange = {kind: {"pictures": 16, "not_sure": caught | {"value": share}} for kind, share in OOD.items()}
    behaviour = good_behaviour()
    less = {"value": 0.9, "interval": [0.85, 0.95]}
    behaviour["invariance"] |= {"cropped": {"same_answer": less, "mean_change": 0.05}}
    return found | {"behaviour": behaviour, "other_things": strange, "later": {"time_ms": 12.34, "hit_share": 0.9875}}


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
    expect(results(page).nth(1)).to_contain_text("Send one of JPEG, PNG, WEBP, GIF, BMP, TIFF, HEIF, AVIF.")
    expect(results(page).nth(1)).to_contain_text("not_an_image")


def test_not_sure_comes_with_its_reason_and_asks_what_it_is(page: Page) -> None:
    grey = io.BytesIO()
    plain((40, 40), (128, 128, 128)).save(grey, "PNG")
    result = sent(page, {"name": "grey.png", "mimeType": "image/png", "buffer": grey.getvalue()})
    expect(result.get_by_role("heading")).to_have_text("Not sure")
    expect(result.locator(".reason")).to_contain_text("names a class from 60.0 % up")
    expect(result.get_by_role("group")).to_contain_text("Do you know what it is?")


def test_the_heat_map_fades(page: Page) -> None:
    result = sent(page, picture())
    fade = result.get_by_role("slider")
    heat = result.locator("canvas")
    expect(fade).to_be_enabled()
    drawn = heat.evaluate("c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size")
    assert drawn > 10
    fade.fill("0")
    expect(heat).to_have_css("opacity", "0")
    fade.press("ArrowRight")
    expect(heat).to_have_css("opacity", "0.01")


def test_the_heat_map_glows_within_the_square_that_the_network_sees_and_fades_softly(page: Page) -> None:
    wide = io.BytesIO()
    Image.open(io.BytesIO(tiny_picture(0, 7, side=64))).resize((128, 64)).save(wide, "PNG")
    result = sent(page, {"name": "wide.png", "mimeType": "image/png", "buffer": wide.getvalue()})
    expect(result.get_by_role("slider")).to_be_enabled()
    assert result.locator("img").bounding_box() == result.locator("canvas").bounding_box()
    pixels = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((_, i) => i % 4 === 3)]"
    opacity = np.asarray(result.locator("canvas").evaluate(pixels)).reshape(128, 256)
    assert not opacity[:, :64].any()
    assert not opacity[:, 192:].any()
    assert opacity.max() > 100
    assert np.abs(np.diff(opacity.astype(int))).max() < 20  # no hard border anywhere


def test_the_picture_is_shown_beside_itself_without_the_map(page: Page) -> None:
    result = sent(page, picture())
    both = result.get_by_role("button", name="Side by side")
    expect(result.locator("figure img")).to_have_count(1)
    both.click()
    expect(result.locator("figure img")).to_have_count(2)
    expect(result.get_by_text("With the heat map")).to_be_visible()
    expect(both).to_have_attribute("aria-pressed", "true")
    assert violations(page) == []
    both.click()
    expect(result.get_by_text("With the heat map")).to_be_hidden()


@pytest.mark.parametrize("kind", ["tiff", "heif"])
def test_what_the_browser_cannot_show_is_seen_as_the_service_draws_it(page: Page, kind: str) -> None:
    pillow_heif.register_heif_opener()
    scanned = io.BytesIO()
    Image.open(io.BytesIO(tiny_picture(0, 7, side=64, noise=0.0))).save(scanned, kind)
    text: FilePayload = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    scan: FilePayload = {"name": f"scan.{kind}", "mimeType": f"image/{kind}", "buffer": scanned.getvalue()}
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    sent(page, text, scan)
    result = results(page).nth(1)
    expect(result).to_contain_text("You see what the network sees of it.")
    expect(result.get_by_role("slider")).to_be_enabled()
    assert result.locator("img").evaluate("image => image.naturalWidth") == 32
    expect(results(page).first).to_contain_text("This browser cannot show the file.")
    assert sum("heat=false" in url for url in asked) == 1


def test_several_pictures_are_summed_up_and_saved_as_csv(page: Page) -> None:
    names = ['=HYPERLINK("x").png', "猫, žlutá.png", " @b.png"]
    sent(page, *(picture(label, name) for label, name in enumerate(names)), picture(0, "last.png"))
    sent(page, {"name": "-1.txt", "mimeType": "text/plain", "buffer": b"no picture"})
    summary = page.locator("#summary")
    expect(summary).to_contain_text("5 pictures, 4 answers.")
    expect(summary.get_by_role("listitem").first).to_have_text("Cat2")
    expect(summary.get_by_role("listitem").last).to_have_text("No answer1")
    with page.expect_download() as download:
        summary.get_by_role("button", name="Download CSV").click()
    assert re.fullmatch(r"answers-[\dT-]+\.csv", download.value.suggested_filename)
    data = Path(download.value.path()).read_bytes()
    assert data.startswith("\ufeff".encode())
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert [row[0] for row in rows] == ["file", *("'" + names[0], names[1], "'" + names[2]), "last.png", "'-1.txt"]
    assert rows[0][1:4] == ["label", "confidence", "reason"]
    assert rows[0][4:10] == [f"probability of {name}" for name in CLASSES]
    assert [row[1] for row in rows[1:]] == ["cat", "<b>dog</b>", "R&D", "cat", ""]
    assert float(rows[1][2]) == float(rows[1][4]) > 0.5
    assert (rows[5][10], len(rows[1][-1]), {len(row) for row in rows}) == ("not_an_image", 32, {14})
    page.get_by_role("button", name="Clear all").click()
    sent(page, picture())
    expect(summary).to_be_hidden()


def test_nothing_moves_while_the_pages_load_and_answers_come(browser: Browser, server: Server) -> None:
    context = browser.new_context(viewport={"width": 320, "height": 640})
    context.add_init_script(SHIFTS)
    for page in opened(context, f"{server.url}/ui"):
        expect(page.get_by_role("button", name="Sample 2")).to_be_visible()
        sent(page, *(picture(label) for label in (0, 1, 2)))
        expect(page.get_by_role("slider").first).to_be_enabled()
        assert page.evaluate("window.shift") < 0.05  # what Lighthouse calls good is below 0.1
        page.goto(f"{server.url}/ui/model")
        expect(page.get_by_role("heading", name="Versions")).to_be_visible()
        assert page.evaluate("window.shift") < 0.05


@pytest.mark.parametrize("address", ["/ui", "/ui/model"])
def test_a_page_is_light(browser: Browser, server: Server, address: str) -> None:
    sizes: list[int] = []
    context = browser.new_context()
    page = context.new_page()
    own = re.compile(r"/ui(/model)?$|/ui/files/")  # not the pictures of the model folder
    page.on("response", lambda answer: sizes.append(len(answer.body())) if own.search(answer.url) else None)
    page.goto(f"{server.url}{address}", wait_until="networkidle")
    context.close()
    assert len(sizes) > 6
    assert sum(sizes) < 100_000  # before compression


def test_on_paper_only_what_can_be_read_is_left(page: Page, server: Server) -> None:
    result = sent(page, picture())
    page.emulate_media(media="print")
    expect(result.get_by_role("heading", name="Cat")).to_be_visible()
    for gone in ("#drop", "nav", ".feedback", ".fade"):
        expect(page.locator(gone).first).to_be_hidden()
    page.emulate_media(media="screen")
    page.goto(f"{server.url}/ui/model")
    table = page.locator("details table").first
    expect(table).to_be_hidden()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 700, "height": 1000})  # of A4 within its margins
    expect(table).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 700


def test_behaviour_is_drawn_with_the_floor_and_out_of_distribution_kinds_sort(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/ui/model")
    changes = page.locator("#behaviour")
    expect(changes).to_contain_text("The line marks the gate's floor, 97.0 %")
    cropped = "5 % cut off on each side 90.0 % 85.0 % to 95.0 % 5.0 points"
    expect(changes.get_by_role("row", name=cropped)).to_be_visible()
    expect(changes.locator(".below")).to_have_count(1)  # that one
    assert changes.locator(".tick").first.evaluate("tick => tick.style.left") == "97%"
    expect(changes.get_by_role("row", name="blurred 95.0 % 90.0 % \u22125.0 points")).to_be_visible()
    kinds = page.locator("#ood")
    kinds.get_by_role("button", name="caught").click()
    expect(kinds.locator("tbody th")).to_have_text(["Noise", "Screen shot", "All kinds"])
    kinds.get_by_role("button", name="caught").click()
    expect(kinds.locator("tbody th")).to_have_text(["All kinds", "Screen shot", "Noise"])
    expect(page.locator("#versions h3")).to_have_text(["Version 3: the champion", "Version 2: rolled back"])


def test_right_and_wrong_are_saved_and_can_be_changed(page: Page, server: Server) -> None:
    result = sent(page, picture())
    result.get_by_role("button", name="Right").click()
    expect(result.locator(".outcome")).to_contain_text("Thank you. Saved as cat.")
    result.get_by_role("button", name="Change it").click()
    result.get_by_label("Wrong, it is").select_option("R&D")
    result.get_by_role("button", name="Send").click()
    expect(result.locator(".outcome")).to_contain_text("Saved as R&D")
    page.goto(f"{server.url}/ui/model")
    expect(page.locator("#live")).to_contain_text("1 reviewed answer")


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
    expect(result.get_by_role("slider")).to_be_enabled()
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
    expect(results(page).first.get_by_role("slider")).to_be_enabled()
    assert violations(page) == []


def test_the_model_page_draws_the_whole_card(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/ui/model")
    expect(page.get_by_role("heading", level=1)).to_have_text("cats-vs-dogs version 3")
    for name in ("What it confuses", "Calibration", "Class by class", "Its worst mistakes"):
        expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.get_by_role("cell", name="at least <0.6>")).to_be_visible()
    expect(page.locator("#versions")).to_contain_text("it confused horses")
    expect(page.locator("#lineage li")).to_have_count(9)
    expect(page.get_by_role("row", name="later, time ms 12.3 ms")).to_be_visible()
    expect(page.get_by_role("row", name="later, hit share 98.8 %")).to_be_visible()
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
    expect(results(page).first.locator(".outcome")).to_contain_text("Saved as dog")
    assert first.stop() == 0

    page.set_input_files("#picker", [picture(1, "dog.png")])
    expect(page.get_by_role("alert")).to_have_text(re.compile("The service cannot be reached"))
    again = Server.start(
        project, tmp_path / "home", first.port, SERVE_DRAIN="0", MODEL_PATH=str(folder.path), API_KEYS="secret"
    )
    try:
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("This service needs an API key.")
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
        page.locator("#operations-predict-predict .opblock-summary-control").click()
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
        expect(page.locator("input[type=range]:enabled")).to_have_count(pictures)
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
        drawn = [tiny_picture(label, 7, side=8, noise=0.0) for label in range(count)]
        return [{"name": f"{n}.png", "mimeType": "image/png", "buffer": data} for n, data in enumerate(drawn)]
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
