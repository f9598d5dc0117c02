"""The champion over a folder of pictures on real Spark, in local mode."""

from __future__ import annotations

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
    where = killing.environment() | {"SPARK_LOCAL_IP": "127.0.0.1"}  # a machine's own name need not resolve
    return subprocess.run(line, env=where, capture_output=True, text=True, timeout=280)


@pytest.mark.needs("java", "pyspark")
@pytest.mark.timeout(600)
def test_spark_gives_every_picture_its_answer(project: Path) -> None:
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
    assert scores["label"][1:].tolist() == ["cat", "dog"] * 3
    assert scores["label"].isna().tolist() == [True, *[False] * 6]
    assert scores.columns.tolist() == ["path", "label", "cat", "dog"]
    assert scores["cat"].isna().tolist() == [True, *[False] * 6]
    again = run("many", "--out", "scores")
    assert again.returncode == 1
    assert "already exists" in again.stderr.splitlines()[-1]


def test_without_spark_the_mend_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    monkeypatch.setattr(sys, "argv", ["training.spark", "many", "--out", "scores"])
    with pytest.raises(spark.SparkError, match="pip install"):
        spark.main()
