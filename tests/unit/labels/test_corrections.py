from pathlib import Path

import pytest

from training.labels import corrections
from training.labels.corrections import CorrectionError

HEAD = "sha256,label,who,why,test\n"
ONE, TWO = "1" * 64, "2" * 64
LINES = HEAD + f'{ONE},dog,Ada,"it barks, I was there",\n{TWO},drop,Ada,a sofa,yes\n'


def test_what_is_read_is_written_again() -> None:
    found = corrections.parse(LINES, "file")
    assert (found[ONE].label, found[ONE].why, found[ONE].test, found[ONE].drops) == (
        "dog",
        "it barks, I was there",
        False,
        False,
    )
    assert (found[TWO].test, found[TWO].drops) == (True, True)
    assert corrections.text_of(found.values()) == LINES


@pytest.mark.parametrize("text", [f"sha256,label,who,why\n{ONE},dog,Ada,\n", "\ufeff" + HEAD + f"\n{ONE},dog,Ada,,\n"])
def test_spreadsheets_and_lines_without_the_last_column_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.csv").write_text(text)
    assert list(corrections.read(tmp_path / "c.csv")) == [ONE]
    assert corrections.read(tmp_path / "none.csv") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "c.csv must begin with the line sha256,label,who,why,test, found ''"),
        ("sha,label\n", "must begin with the line"),
        (HEAD + f"{ONE},dog\n", "c.csv, line 2: expected 5 cells, found 2"),
        (HEAD + "12,dog,Ada,,\n", "c.csv, line 2: '12' is no SHA-256"),
        (HEAD + f"{ONE},,Ada,,\n", "line 2: the label is missing"),
        (HEAD + f"{ONE},dog, ,,\n", "line 2: the name of who says so is missing"),
        (HEAD + f"{ONE},dog,Ada,,no\n", "line 2: column test holds 'no'"),
        (HEAD + f"{ONE},dog,Ada, ,yes\n", "line 2: a correction of a test picture needs a reason"),
        (HEAD + f"{ONE},dog,Ada,,\n{ONE},cat,Ada,,\n", f"line 3: {ONE[:16]} is corrected twice, see c.csv, line 2"),
    ],
)
def test_a_bad_line_is_one_error_that_names_it(text: str, said: str) -> None:
    with pytest.raises(CorrectionError) as error:
        corrections.parse(text, "c.csv")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_many_bad_lines_are_named_together_and_not_without_end() -> None:
    with pytest.raises(CorrectionError) as error:
        corrections.parse(HEAD + "x,dog,Ada,,\n" * 13, "c.csv")
    assert len(str(error.value).splitlines()) == corrections.SAID + 1
    assert str(error.value).endswith("... and 3 more")


def test_unknown_pictures_and_classes_and_test_pictures_that_are_not_meant() -> None:
    found = corrections.parse(HEAD + f"{ONE},dgo,Ada,,\n{TWO},drop,Ada,,\n", "c.csv").values()
    with pytest.raises(CorrectionError, match="line 2: no class 'dgo', nearest: 'dog'"):
        corrections.check(found, ("cat", "dog"), (ONE, TWO))
    with pytest.raises(CorrectionError, match="line 3: no picture has the SHA-256 2222"):
        corrections.check(found, ("cat", "dgo"), (ONE,))
    with pytest.raises(CorrectionError, match="a class is called drop"):
        corrections.check(found, ("dgo", "drop"), (ONE, TWO))
    with pytest.raises(CorrectionError, match=r"line 3: 2222222222222222\.\.\. is a test picture"):
        corrections.check_test(found, (TWO,))
    corrections.check(found, ("cat", "dgo"), (ONE, TWO))
    corrections.check_test(found, ())


def test_a_later_word_takes_the_place_of_a_former_one(tmp_path: Path) -> None:
    path = tmp_path / "corrections.csv"
    assert corrections.add(corrections.parse(LINES, "new"), path) == 2
    assert corrections.add(corrections.parse(LINES, "new"), path) == 0
    assert corrections.add(corrections.parse(HEAD + f"{ONE},cat,Bob,,\n", "new"), path) == 1
    assert path.read_text() == HEAD + f"{TWO},drop,Ada,a sofa,yes\n{ONE},cat,Bob,,\n"
