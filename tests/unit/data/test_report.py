import re

import numpy as np
import pytest
from PIL import Image

from data import report
from data.pictures import Examined, Refused
from data.split import AssignedPicture
from tests.drawing import encoded


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> report.Findings:
    """Far more of everything than fits on a page, and all of it noise, which hardly shrinks."""
    folder = tmp_path_factory.mktemp("noise")
    pictures = []
    for number in range(300):
        path = folder / f"{number}.png"
        noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        path.write_bytes(encoded(Image.fromarray(noise), compress_level=1))
        examined = Examined(path.name, path, "00", f"{number:064x}", 64, 64 + number, 0, b"", 0)
        pictures.append(
            AssignedPicture(examined, ("cat", "dog")[number % 2], "", ("train", "validation", "test")[number % 3])
        )
    refused = [Refused(f"{number}.png", "duplicate", "<script>") for number in range(100)]
    return report.Findings(pictures, refused, [pictures[start : start + 10] for start in range(0, 300, 10)])


def test_page_is_bounded_and_escaped(findings: report.Findings) -> None:
    raw = findings.pictures[0].examined.path.parent
    page = report.page(findings, report.summarise(findings, "manifest"), raw)
    assert 200_000 < len(page) < 1_000_000
    assert page.count("<img") == 96 + 12 * 4 + 60
    assert "... and 40 more in report.json" in page
    assert "<script>" not in page
    assert set(re.findall(r'src="([^,]*),', page)) == {"data:image/jpeg;base64"}


def test_summary_counts(findings: report.Findings) -> None:
    summary = report.summarise(findings, "manifest")
    assert summary["classes"]["cat"] == {"train": 50, "validation": 50, "test": 50}
    assert summary["splits"] == {"train": 100, "validation": 100, "test": 100}
    assert summary["height"] == {"min": 64, "p05": 79, "median": 214, "p95": 348, "max": 363}
    assert summary["quarantined"]["reasons"] == {"duplicate": 100}
    assert len(summary["quarantined"]["list"]) == 100
    assert summary["near_duplicates"]["groups_of_several_classes"] == 30


def test_terminal_shows_the_reasons(findings: report.Findings) -> None:
    text = report.tell(report.summarise(findings, "manifest"))
    assert "cat: train 50, validation 50, test 50" in text
    assert "quarantined: duplicate 100" in text


def test_one_is_no_more_than_one(findings: report.Findings) -> None:
    few = report.Findings(findings.pictures[:1], findings.refused[:1], [findings.pictures[:2]])
    text = report.tell(report.summarise(few, "manifest"))
    assert "manifest.csv: 1 picture, data" in text
    assert "near duplicates: 2 pictures in 1 group\n" in text
    none = report.Findings(findings.pictures[:1], [], [])
    assert "near duplicates: none\n" in report.tell(report.summarise(none, "manifest"))
    page = report.page(few, report.summarise(few, "manifest"), findings.pictures[0].examined.path.parent)
    assert "<h2>1 group of near duplicates</h2>" in page
    assert "<h2>1 quarantined file</h2>" in page
