"""The champion over a folder of pictures on real Spark, in local mode."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests import killing
from tests.pipeline.acting import promoted
from tests.tiny import tiny_picture
from training import spark


def run(*words: str) -> subprocess.CompletedProcess[str]:
    line = killing.command("training.spark", *words)
    return subprocess.run(line, env=killing.environment(), capture_output=True, text=True, timeout=280)


@pytest.mark.timeout(600)
def test_spark_gives_every_picture_its_answer(project: Path) -> None:
    pytest.importorskip("pyspark", reason="PySpark is not installed: pip install 'pyspark>=4,<5'")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java: apt install default-jre-headless")
    promoted(project, skill=1.0)
    (project / "many/deeper").mkdir(parents=True)
    for number in range(6):
        (project / f"many/deeper/{number}.png").write_bytes(tiny_picture(number % 2, number, noise=0.0))
    (project / "many/bad.jpg").write_bytes(b"no picture")
    (project / "many/notes.txt").write_text("no picture at all")
    done = run("many", "--out", "scores")
    assert done.returncode == 0, done.stderr
    scores = pd.read_parquet(project / "scores").sort_values("path", ignore_index=True)
    assert [Path(path).name for path in scores["path"]] == ["bad.jpg", *(f"{number}.png" for number in range(6))]
    assert scores["label"].tolist() == [None, *["cat", "dog"] * 3]
    assert scores.columns.tolist() == ["path", "label", "cat", "dog"]
    again = run("many", "--out", "scores")
    assert again.returncode == 1
    assert "already exists" in again.stderr.splitlines()[-1]


def test_without_spark_the_mend_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    monkeypatch.setattr(sys, "argv", ["training.spark", "many", "--out", "scores"])
    with pytest.raises(spark.SparkError, match="pip install"):
        spark.main()
