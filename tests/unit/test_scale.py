import numpy as np
import pytest

from tests.drawing import class_files, write_files
from tests.load.scale import Cost, Fit, photographs, told


def test_a_line_through_two_sizes() -> None:
    fit = Fit.through([1000, 4000], [12.0, 42.0])
    assert (fit.fixed, fit.each, fit.at(25_000)) == pytest.approx((2.0, 0.01, 252.0))
    assert Fit.through([1000, 4000], [10.0, 160.0]).exponent == pytest.approx(2.0)


def test_photographs_are_all_different_and_the_same_each_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = write_files(tmp_path_factory.mktemp("originals"), class_files(2))
    originals = sorted(folder.glob("*/*"))
    made = dict(photographs(originals, 12))
    assert len(set(made.values())) == 12
    assert {name.split("/")[0] for name in made} == {"cat", "dog"}
    assert dict(photographs(originals, 12)) == made
    assert np.all([data.startswith(b"\xff\xd8") for data in made.values()])


def test_the_fit_is_shown() -> None:
    found = [dict.fromkeys(("data.fetch", "data.prepare"), Cost(1.0, seconds, 100, 90)) for seconds in (60.0, 240.0)]
    lines = told([1000, 4000], found).splitlines()
    assert lines[4].split() == ["data.fetch", "250,000", "(fit)", "250.0", "100"]
    assert lines[-1] == (
        "data.prepare: CPU time 0.0 s + 60.00 s for 1,000, exponent 1.00; memory 100 MB + 0.0 MB for 1,000"
    )
