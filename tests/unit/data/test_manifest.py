"""The manifest, and the cache of decoded pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data import manifest as manifest_module
from data.manifest import DatasetError, Manifest, Picture, array_writer, decoded, decoded_key, spread
from tests.tiny import tiny_data
from training.model import preprocess
from training.model.preprocess import Preprocessing, load


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.setattr(manifest_module, "CACHE_FOLDER", tmp_path / "cache")
    return Manifest.read(tiny_data(tmp_path, ("cat", "dog", "fox"), per_class=20), tmp_path / "data/processed")


def test_the_rows_of_a_manifest(manifest: Manifest) -> None:
    assert manifest.classes == ("cat", "dog", "fox")
    assert len(manifest.pictures) == 60
    assert sum(len(manifest.split(name)) for name in ("train", "validation", "test")) == 60
    assert set(manifest.labels(manifest.split("test"))) == {0, 1, 2}


def test_near_duplicates_have_the_same_number(manifest: Manifest) -> None:
    first, *others = manifest.split("train")
    name = f"{first.label}/{first.path.name}"
    copies = tuple(replace(other, group=name) for other in others[:2])
    changed = replace(manifest, pictures=(replace(first, group=name), *copies, *others[2:]))
    numbers = changed.groups(changed.pictures)
    assert numbers[0] == numbers[1] == numbers[2]
    assert len(set(numbers)) == len(changed.pictures) - 2
    assert list(changed.groups(changed.pictures[1:])) == list(numbers[1:])


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"manifest.csv is missing: run `dvc repro prepare`"):
        Manifest.read(tmp_path / "manifest.csv")


def test_an_empty_split(manifest: Manifest) -> None:
    with pytest.raises(DatasetError, match="the split 'holdout' has no pictures"):
        manifest.split("holdout")


def test_the_test_hash_knows_content_and_class_but_not_order(manifest: Manifest) -> None:
    turned = Manifest(tuple(reversed(manifest.pictures)), "other")
    assert turned.test_sha256 == manifest.test_sha256
    fewer = Manifest(tuple(p for p in manifest.pictures if p.label != "fox"), "other")
    assert fewer.test_sha256 != manifest.test_sha256


def test_test_pictures_that_a_former_model_has_seen(manifest: Manifest) -> None:
    assert manifest.test_seen_by(manifest) == ()
    moved = [replace(one, split="train") if one.split == "test" else one for one in manifest.pictures[:20]]
    former = Manifest((*moved, *manifest.pictures[20:]), "other")
    seen = manifest.test_seen_by(former)
    assert seen == tuple(one for one in manifest.pictures[:20] if one.split == "test")
    assert len(seen) == 10


def test_decoded_pictures_are_what_serving_sees(manifest: Manifest) -> None:
    how = Preprocessing(size=24, resize=28)
    rows = manifest.split("test")
    array = decoded(rows, how)
    assert array.shape == (len(rows), 24, 24, 3)
    for index in (0, len(rows) // 2, len(rows) - 1):
        np.testing.assert_array_equal(array[index], load(rows[index].path.read_bytes(), how))


def test_the_cache_is_filled_once(manifest: Manifest) -> None:
    rows = manifest.split("test")
    decoded(rows, Preprocessing(24, 28))
    for row in rows:
        row.path.unlink()
    assert len(decoded(rows, Preprocessing(24, 28))) == len(rows)
    with pytest.raises(FileNotFoundError):
        decoded(rows, Preprocessing(24, 29))


def test_other_code_or_another_filter_has_a_cache_of_its_own(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, how = manifest.split("test"), Preprocessing(24, 28)
    changed = tmp_path / "changed.py"
    changed.write_bytes(Path(preprocess.__file__).read_bytes() + b"#")
    names = {decoded_key(rows, how), decoded_key(rows, replace(how, shrink="bilinear")), decoded_key(rows[1:], how)}
    monkeypatch.setattr(preprocess, "__file__", str(changed))
    names.add(decoded_key(rows, how))
    assert len(names) == 4


def test_an_unfinished_array_has_no_name(tmp_path: Path) -> None:
    def fail_half_way() -> None:
        with array_writer(tmp_path / "a.npy", 4) as write:
            write(0, np.zeros((2, 3)))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []


def of_classes(**counts: int) -> list[Picture]:
    return [
        Picture(Path(f"{label}/{number}"), label, "train", f"{label}{number}", 1, 1, "")
        for label, count in counts.items()
        for number in range(count)
    ]


def chosen(pictures: list[Picture], count: int) -> Counter[str]:
    found = spread(pictures, count)
    order = {one.path: place for place, one in enumerate(pictures)}
    assert [order[one.path] for one in found] == sorted({order[one.path] for one in found})
    return Counter(one.label for one in found)


def test_a_sample_holds_every_class_in_proportion() -> None:
    assert chosen(of_classes(a=900, b=100), 100) == {"a": 90, "b": 10}
    assert chosen(of_classes(a=1000, b=1, c=1000, d=3), 200) == {"a": 99, "b": 1, "c": 99, "d": 1}
    assert chosen(of_classes(a=1, b=1, c=98), 4) == {"a": 1, "b": 1, "c": 2}
    assert chosen(of_classes(a=3, b=4), 50) == {"a": 3, "b": 4}


def test_a_sample_of_fewer_pictures_than_classes() -> None:
    assert chosen(of_classes(a=5, b=5, c=5), 2) == {"a": 1, "c": 1}


def test_a_sample_is_spread_over_its_class() -> None:
    assert [one.sha256 for one in spread(of_classes(a=9, b=1), 4)] == ["a0", "a4", "a8", "b0"]
