import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.errors import DataError
from data.files import workspace
from data.manifest import COLUMNS
from data.pictures import Examined, Refused
from data.prepare import (
    MANIFEST,
    PROCESSED,
    RAW,
    REPORT_HTML,
    REPORT_JSON,
    assign,
    check_left,
    check_splits,
    class_name,
    prepare,
)
from data.split import SPLITS, AssignedPicture, GoodPicture
from data.tree import class_of, find_tree
from tests.drawing import class_files, drawing, encoded, prepare_section, read_files, write_files
from tests.killing import command, environment, project, run, run_killed_after
from training.labels.corrections import CORRECTIONS_FILE, CorrectionError
from training.labels.own_columns import COLUMNS_FILE

pytestmark = pytest.mark.slow

RENAME = {"cats": "cat", "Dog": "dog"}


def prepared(folder: Path, files: Mapping[str, bytes], **changes: Any) -> list[dict[str, str]]:
    """The rows of the manifest for these files in data/raw."""
    write_files(folder / RAW, files)
    prepare(prepare_section(**changes), RENAME, folder)
    return rows(folder)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / MANIFEST).open(newline="") as file:
        return list(csv.DictReader(file))


def splits(found: list[dict[str, str]]) -> dict[str, str]:
    return {row["source"]: row["split"] for row in found}


def quarantined(folder: Path) -> dict[str, tuple[str, str]]:
    listed = json.loads((folder / REPORT_JSON).read_text())["quarantined"]["list"]
    return {file["source"]: (file["reason"], file["detail"]) for file in listed}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared project of 2 x 20 good pictures and one of each fault."""
    folder = tmp_path_factory.mktemp("mixed")
    copied, big = encoded(drawing(3), "BMP"), drawing(700, 300, 200)
    faults = {
        "cat/copy.bmp": copied,  # of cat/3.png
        "cat/broken.jpg": encoded(drawing(500), "JPEG")[:-40],
        "cat/tiny.png": encoded(drawing(501, 12, 12)),
        "cat/both.png": encoded(drawing(502)),
        "dog/both.bmp": encoded(drawing(502), "BMP"),
        "dog/<b>&.jpg": b"no picture",
        "dog/big.jpg": encoded(big, "JPEG", orientation=6),
        "dog/near.jpg": encoded(big.rotate(270, expand=True).resize((150, 225)), "JPEG", quality=70),
    }
    prepared(folder, class_files(20) | faults, workers=2)
    return folder


def test_manifest_describes_the_processed_files(mixed: Path) -> None:
    found = rows(mixed)
    assert tuple(found[0]) == COLUMNS
    assert [row["path"] for row in found] == sorted(row["path"] for row in found)
    files = read_files(mixed / PROCESSED)
    assert set(files) == {row["path"] for row in found}
    for row in found:
        assert hashlib.sha256(files[row["path"]]).hexdigest() == row["sha256"]
        assert re.fullmatch(rf"{row['class']}/{row['sha256'][:16]}\.\w+", row["path"])
        with Image.open(mixed / PROCESSED / row["path"]) as image:
            assert image.size == (int(row["width"]), int(row["height"]))
            assert image.mode == "RGB"
            assert min(image.size) <= 64
        assert row["source"].split("/")[0] == row["class"]
    assert b"\r" not in (mixed / MANIFEST).read_bytes()


def test_every_file_is_in_the_manifest_or_quarantined(mixed: Path) -> None:
    kept, refused = set(splits(rows(mixed))), set(quarantined(mixed))
    assert kept | refused == set(read_files(mixed / RAW))
    assert not kept & refused


def test_quarantines_with_reasons(mixed: Path) -> None:
    found = quarantined(mixed)
    assert {name: reason for name, (reason, _) in found.items() if reason != "near_duplicate"} == {
        "cat/broken.jpg": "corrupt",
        "cat/tiny.png": "too_small",
        "cat/copy.bmp": "duplicate",
        "cat/both.png": "label_conflict",
        "dog/both.bmp": "label_conflict",
        "dog/<b>&.jpg": "not_an_image",
    }
    assert found["cat/copy.bmp"][1] == "same pixels as cat/3.png"
    assert found["cat/both.png"][1] == "same pixels in another class: dog/both.bmp"
    assert found["dog/both.bmp"][1] == "same pixels in another class: cat/both.png"


def test_near_duplicates_never_straddle(mixed: Path) -> None:
    found = splits(rows(mixed))
    assert found["dog/big.jpg"] == found["dog/near.jpg"]
    assert {row["source"] for row in rows(mixed) if row["group"]} == {"dog/big.jpg", "dog/near.jpg"}
    summary = json.loads((mixed / REPORT_JSON).read_text())["near_duplicates"]
    assert sorted(summary["examples"][0]) == ["dog/big.jpg", "dog/near.jpg"]
    assert (summary["groups"], summary["pictures"]) == (1, 2)


def test_report_counts_the_manifest(mixed: Path) -> None:
    summary, found = json.loads((mixed / REPORT_JSON).read_text()), rows(mixed)
    assert summary["pictures"] == len(found)
    for label, counts in summary["classes"].items():
        for split, count in counts.items():
            assert count == sum((row["class"], row["split"]) == (label, split) for row in found)
    assert summary["data_hash"] == hashlib.sha256((mixed / MANIFEST).read_bytes()).hexdigest()
    lines = sorted(f"{row['sha256']} {row['class']}\n" for row in found if row["split"] == "test")
    assert summary["test_hash"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert (summary["width"]["min"], summary["width"]["max"]) == (48, 64)


def test_page_is_self_contained(mixed: Path) -> None:
    page = (mixed / REPORT_HTML).read_text()
    assert page.count("data:image/jpeg;base64,") > 40
    assert "dog/&lt;b&gt;&amp;.jpg" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert len(page) < 1_000_000


def test_a_rerun_gives_the_same_bytes(mixed: Path, tmp_path: Path) -> None:
    shutil.copytree(mixed / RAW, tmp_path / RAW)
    prepare(prepare_section(workers=1), RENAME, tmp_path)
    prepare(prepare_section(workers=1), RENAME, tmp_path)
    for name in (MANIFEST, REPORT_JSON, REPORT_HTML):
        assert (tmp_path / name).read_bytes() == (mixed / name).read_bytes()
    assert {path.name for path in (tmp_path / "data/.prepare").iterdir()} == {"lock"}


def test_adding_pictures_moves_no_other(tmp_path: Path) -> None:
    before = splits(prepared(tmp_path, class_files(15)))
    unrelated = class_files(15, start=100)
    after = splits(prepared(tmp_path, unrelated))
    assert {name: after[name] for name in before} == before
    near = {
        f"{name}.webp": encoded(Image.open(tmp_path / RAW / name).resize((40, 33)), "WEBP")
        for name in (*class_files(15), *unrelated)
    }
    found = prepared(tmp_path, near)
    last = splits(found)
    assert {name: last[name] for name in after} == after
    assert {name: last[f"{name}.webp"] for name in after} == after
    assert not quarantined(tmp_path)
    group = {row["source"]: row["group"] for row in found}
    path = {row["source"]: row["path"] for row in found}
    assert all(group[name] == group[f"{name}.webp"] == path[name] for name in after)


def test_a_given_test_folder_is_the_test_split(tmp_path: Path) -> None:
    test = class_files(3, start=200, prefix="test/")
    copies = {
        "train/cat/copy.bmp": encoded(drawing(200), "BMP"),  # the pixels of test/cat/200.png
        "train/dog/near.jpg": encoded(drawing(1201).resize((40, 33)), "JPEG"),  # looks like test/dog/201.png
        "train/cat/wrong.bmp": encoded(drawing(1202), "BMP"),  # the pixels of test/dog/202.png, in another class
    }
    found = splits(prepared(tmp_path, class_files(15, prefix="train/") | test | copies))
    assert {name for name, split in found.items() if split == "test"} == set(test) - {"test/dog/202.png"}
    assert {found[name] for name in found if name.startswith("train/")} == {"train", "validation"}
    gone = quarantined(tmp_path)
    assert gone["train/cat/copy.bmp"] == ("duplicate", "same pixels as test/cat/200.png")
    assert gone["train/dog/near.jpg"][0] == "near_duplicate"
    assert gone["train/dog/near.jpg"][1] == "looks like test/dog/201.png, a test picture"
    assert {gone[name][0] for name in ("train/cat/wrong.bmp", "test/dog/202.png")} == {"label_conflict"}


def test_given_splits_stay(tmp_path: Path) -> None:
    """Nothing is drawn in their place, and what looks like one of them is set aside."""
    train = class_files(5, prefix="train/")
    held = class_files(3, start=200, prefix="validation/")
    test = class_files(3, start=300, prefix="test/")
    like = {
        "train/dog/near.jpg": encoded(drawing(1201).resize((40, 33)), "JPEG"),  # looks like validation/dog/201.png
        "validation/dog/near.jpg": encoded(drawing(1301).resize((40, 33)), "JPEG"),  # looks like test/dog/301.png
        "train/cat/copy.bmp": encoded(drawing(201), "BMP"),  # the pixels of validation/cat/201.png
    }
    found = splits(prepared(tmp_path, train | held | test | like))
    assert found == {name: name.split("/")[0] for name in (*train, *held, *test)}
    assert {name: detail for name, (_, detail) in quarantined(tmp_path).items()} == {
        "train/dog/near.jpg": "looks like validation/dog/201.png, a validation picture",
        "validation/dog/near.jpg": "looks like test/dog/301.png, a test picture",
        "train/cat/copy.bmp": "same pixels as validation/cat/201.png",
    }


@pytest.mark.parametrize(
    ("brought", "drawn"), [("validation", {"train", "test"}), ("test", {"train", "validation"}), ("", set(SPLITS))]
)
def test_what_is_not_given_is_drawn(brought: str, drawn: set[str]) -> None:
    described = [Examined("", Path(f"{n}.png"), f"{n * 0x0444_4444:08x}" * 8, "", 1, 1, n, b"", 0) for n in range(60)]
    pictures = [GoodPicture(one, "cat", brought if number < 9 else "") for number, one in enumerate(described)]
    found, held = assign(pictures, np.arange(60), prepare_section())
    assert not held
    assert {one.split for one in found if one.examined.look >= 9} == drawn
    assert [one.split for one in found if one.examined.look < 9 and brought] == [brought] * (9 if brought else 0)


def test_folders_are_renamed_and_merged(tmp_path: Path) -> None:
    dogs = {name.replace("dog", "Dog"): data for name, data in class_files(15).items()}
    more = {name.replace("cat", "cats"): data for name, data in class_files(3, 60).items() if "cat" in name}
    found = prepared(tmp_path, dogs | more)
    assert {row["class"] for row in found} == {"cat", "dog"}
    assert {row["source"].split("/")[0] for row in found} == {"cat", "cats", "Dog"}


def test_three_classes_need_no_change(tmp_path: Path) -> None:
    cows = {f"cow/{number}.png": encoded(drawing(5000 + number)) for number in range(15)}
    assert {row["class"] for row in prepared(tmp_path, class_files(15) | cows)} == {"cat", "dog", "cow"}


@pytest.mark.parametrize("name", ["", "..", "a\\b", "a\nb"])
def test_a_class_name_can_be_a_folder_name(name: str) -> None:
    with pytest.raises(DataError, match="cannot be a class name"):
        class_name("cats/1.png", {"cats": name})


def test_a_slash_in_a_class_name_is_none_in_its_folder(tmp_path: Path) -> None:
    write_files(tmp_path / RAW, class_files(15))
    prepare(prepare_section(), {"cat": "US$ / A$"}, tmp_path)
    found = {(row["path"].split("/")[0], row["class"]) for row in rows(tmp_path)}
    assert found == {("US$ %2F A$", "US$ / A$"), ("dog", "dog")}
    read_back = {class_of(name, {}) for name in find_tree(tmp_path / PROCESSED).pictures}
    assert read_back == {"US$ / A$", "dog"}


def test_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data/raw is missing: run python -m data\.fetch"):
        prepare(prepare_section(), RENAME, tmp_path)
    write_files(tmp_path / RAW, class_files(15))
    with pytest.raises(DataError, match="their sum must be less than 1"):
        prepare(prepare_section(validation=0.6, test=0.6), RENAME, tmp_path)
    with pytest.raises(DataError, match=r"makes one class of all folders \(pet\)"):
        prepare(prepare_section(), {"cat": "pet", "dog": "pet"}, tmp_path)
    with workspace(tmp_path / "data/.prepare"), pytest.raises(DataError, match="another process is at work"):
        prepare(prepare_section(), RENAME, tmp_path)
    assert not (tmp_path / MANIFEST).exists()


def test_few_pictures_are_split(tmp_path: Path) -> None:
    found = Counter((row["class"], row["split"]) for row in prepared(tmp_path, class_files(5)))
    assert all(found[label, "train"] >= 2 for label in ("cat", "dog"))
    assert all(found[label, split] >= 1 for label in ("cat", "dog") for split in ("validation", "test"))


def assigned(**classes: str) -> list[AssignedPicture]:
    """Pictures of classes whose splits are given by letters: n (train), v (validation) and e (test)."""
    names = {"n": "train", "v": "validation", "e": "test"}
    described = Examined("", Path(), "0" * 64, "", 1, 1, 0, b"", 0)
    return [AssignedPicture(described, label, "", names[one]) for label, letters in classes.items() for one in letters]


def test_fewer_pictures_are_an_error() -> None:
    check_splits(assigned(cat="nnnve", dog="nnnnnve"), {"cat", "dog"}, ())
    with pytest.raises(DataError, match=r"5 good pictures or more .* here are fewer: cat 4, cow 0\. Add pictures"):
        check_splits(assigned(cat="nnve", dog="nnnnnve"), {"cat", "dog", "cow"}, ())
    with pytest.raises(DataError, match=r"fewer: 00 0, 01 0, .*, 09 0 and 20 more\."):
        check_splits([], {f"{number:02}" for number in range(30)}, ())


def test_near_duplicates_that_leave_a_split_empty_are_an_error() -> None:
    with pytest.raises(DataError, match=r"class cat has no good picture in the test split \(5 in all\): add pictures"):
        check_splits(assigned(cat="nnnnv", dog="nnnve"), {"cat", "dog"}, {"dog"})
    with pytest.raises(DataError, match=r"validation split \(5 in all, and near duplicates stay together\): add"):
        check_splits(assigned(cat="nnnne", dog="nnnve"), {"cat", "dog"}, {"cat"})


def test_pointers_of_git_lfs_are_an_error() -> None:
    refused = [Refused("cat/1.png", "corrupt", ""), Refused("cat/2.png", "lfs_pointer", "")]
    with pytest.raises(DataError, match=r"^1 of 7 files in raw are pointers of Git LFS.*cat/2\.png.*`git lfs pull`"):
        check_left(assigned(cat="nnnve"), refused, Path("raw"))


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"none of the 4 files in .*raw can be used: not_an_image 4 \(such as cat/0\.png"
    ):
        prepared(tmp_path, dict.fromkeys(class_files(2), b"text"))


def test_an_error_leaves_the_former_result(tmp_path: Path) -> None:
    prepared(tmp_path, class_files(15))
    before = read_files(tmp_path / PROCESSED), (tmp_path / MANIFEST).read_bytes()
    shutil.rmtree(tmp_path / RAW)
    with pytest.raises(DataError):
        prepared(tmp_path, class_files(2))
    assert (read_files(tmp_path / PROCESSED), (tmp_path / MANIFEST).read_bytes()) == before


def test_killed_at_any_moment_then_run_again(tmp_path: Path) -> None:
    folder = project(tmp_path)
    write_files(folder / RAW, class_files(300))
    line = command("data.prepare", "--workers", "2")
    assert run(folder, line).returncode == 0
    expected = result(folder)
    kills = 0
    for seconds in (0.6, 0.9, 1.2, 1.5, 1.8):
        kills += run_killed_after(folder, line, seconds)
        if (folder / MANIFEST).exists():
            assert result(folder) == expected  # the former result, whole
    assert kills >= 2
    assert run(folder, line).returncode == 0
    assert result(folder) == expected


def result(folder: Path) -> dict[str, bytes]:
    names = (MANIFEST, REPORT_JSON, REPORT_HTML)
    return read_files(folder / PROCESSED) | {str(name): (folder / name).read_bytes() for name in names}


PEAK = """
import resource, sys
from pathlib import Path
from data.prepare import prepare
from tests.drawing import prepare_section
if __name__ == "__main__":
    prepare(prepare_section(workers=1, near_duplicate_distance=0), {}, Path(sys.argv[1]))
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        print(resource.getrusage(who).ru_maxrss // 1024)
"""


def peak_megabytes(folder: Path, each: int) -> tuple[int, int]:
    """Peak memory of the main process and of its worker, preparing 2 x `each` pictures of 0.5 MB."""
    write_files(folder / RAW, class_files(20))
    for number in range(2 * each):
        big = encoded(drawing(9000 + number, 480, 360), "BMP")
        write_files(folder / RAW, {f"{('cat', 'dog')[number % 2]}/big{number}.bmp": big})
    (folder / "peak.py").write_text(PEAK)
    line = [sys.executable, str(folder / "peak.py"), str(folder)]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, check=True)
    own, worker = map(int, done.stdout.split()[-2:])
    return own, worker


def test_memory_does_not_grow_with_the_pictures(tmp_path: Path) -> None:
    few, many = peak_megabytes(tmp_path / "few", 5), peak_megabytes(tmp_path / "many", 200)
    assert many[0] - few[0] < 40  # the pictures of the second are 200 MB larger
    assert many[1] - few[1] < 40


def test_command_line(tmp_path: Path) -> None:
    write_files(project(tmp_path) / RAW, class_files(20))
    done = run(tmp_path, command("data.prepare", "--validation", "0.3", "--test", "0.3", "--workers", "1"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("data/manifest.csv: 40 pictures, data hash ")
    failed = run(tmp_path, command("data.prepare", "--test", "half"))
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: command line: test:")
    assert failed.stderr.count("\n") == 1


def test_corrections_and_columns_of_ones_own(tmp_path: Path) -> None:
    before = prepared(tmp_path, class_files(20), workers=1)
    cats = [row for row in before if row["class"] == "cat"]
    wrong, sofa, right, *_ = (row["sha256"] for row in cats if row["split"] == "train")
    asked, gone, *_ = (row["sha256"] for row in cats if row["split"] == "test")
    lines = [
        f"{wrong},dog,Ada,,",
        f"{sofa},drop,Ada,a sofa,",
        f"{right},cat,Ada,,",
        f"{asked},dog,Ada,it barks,yes",
        f"{gone},drop,Ada,black,yes",
    ]
    (tmp_path / CORRECTIONS_FILE).write_text("\n".join(["sha256,label,who,why,test", *lines]) + "\n")
    (tmp_path / COLUMNS_FILE).write_text(f"source,camera\n{before[0]['source']},A\n")
    former = json.loads((tmp_path / REPORT_JSON).read_text())
    summary = prepare(prepare_section(workers=1), RENAME, tmp_path)
    found = {row["sha256"]: row for row in rows(tmp_path)}
    assert [(found[one]["class"], found[one]["given"], found[one]["split"]) for one in (wrong, right, asked, gone)] == [
        ("dog", "cat", "train"),
        ("cat", "cat", "train"),
        ("dog", "cat", "test"),
        ("cat", "cat", "dropped"),
    ]
    for row in found.values():
        assert hashlib.sha256((tmp_path / PROCESSED / row["path"]).read_bytes()).hexdigest() == row["sha256"]
    assert set(read_files(tmp_path / PROCESSED)) == {row["path"] for row in found.values()}
    moved = {wrong, sofa, right, asked, gone}
    assert [row["split"] for row in before if row["sha256"] not in moved] == [
        found[row["sha256"]]["split"] for row in before if row["sha256"] not in moved
    ]
    assert quarantined(tmp_path) == {source_of(before, sofa): ("dropped", "a sofa (Ada)")}
    counts = {name: summary["corrections"][name] for name in ("relabelled", "confirmed", "dropped")}
    assert counts == {"relabelled": 2, "confirmed": 1, "dropped": 2}
    assert summary["data_hash"] != former["data_hash"]
    assert summary["test_hash"] != former["test_hash"]
    assert [row["camera"] for row in found.values() if row["camera"]] == ["A"]
    assert "it barks" in (tmp_path / REPORT_HTML).read_text()
    (tmp_path / CORRECTIONS_FILE).write_text(f"sha256,label,who,why\n{asked},dog,Ada,it barks\n")
    with pytest.raises(CorrectionError, match="is a test picture"):
        prepare(prepare_section(workers=1), RENAME, tmp_path)


def source_of(found: list[dict[str, str]], sha256: str) -> str:
    return next(row["source"] for row in found if row["sha256"] == sha256)
