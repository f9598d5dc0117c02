from pathlib import Path

import pytest

from data import audit
from data.errors import DataError
from data.manifest import Manifest
from tests.tiny import tiny_data
from training.labels.corrections import COLUMNS, CORRECTIONS_FILE, CorrectionError


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.chdir(tmp_path)
    tiny_data(tmp_path, per_class=10)
    return Manifest.read()


def lines(folder: Path, *rows: str) -> Path:
    (folder / "new.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    return folder / "new.csv"


def test_lines_are_checked_and_added(manifest: Manifest, tmp_path: Path) -> None:
    train, test = (manifest.split(name)[0].sha256 for name in ("train", "test"))
    said = audit.add(lines(tmp_path, f"{train},dog,Ada,,"), manifest, test=False)
    assert said == "data/corrections.csv: 1 lines new or changed; commit it, then run dvc repro"
    with pytest.raises(CorrectionError, match=r"line 2: .* is a test picture"):
        audit.add(lines(tmp_path, f"{test},dog,Ada,it barks,"), manifest, test=True)
    measured = lines(tmp_path, f"{test},dog,Ada,it barks,yes")
    with pytest.raises(DataError, match=r"1 of 1 lines correct the test split.* add --test"):
        audit.add(measured, manifest, test=False)
    with pytest.raises(CorrectionError, match="no class 'dgo'"):
        audit.add(lines(tmp_path, f"{train},dgo,Ada,,"), manifest, test=False)
    with pytest.raises(DataError, match=r"none\.csv is missing"):
        audit.add(Path("none.csv"), manifest, test=False)
    audit.add(lines(tmp_path, f"{test},dog,Ada,it barks,yes"), manifest, test=True)
    assert CORRECTIONS_FILE.read_text().splitlines()[1:] == [f"{train},dog,Ada,,", f"{test},dog,Ada,it barks,yes"]
