from pathlib import Path

import pytest

from data.layout.flat import classes_of_names


def classes(*names: str) -> dict[str, str] | str:
    found = classes_of_names([Path("x", name) for name in names])
    return found if isinstance(found, str) else {path.name: label for path, label in found.items()}


@pytest.mark.parametrize(
    "form", ["{}.{}.jpg", "{}_{}.png", "{}-{}.jpeg", "{} ({}).webp", "{}{}.jpg", "{} {}.gif", "{}_000{}"]
)
@pytest.mark.parametrize("label", ["cat", "American_bulldog", "Käfer", "sea lion"])
def test_names_that_begin_with_the_class(form: str, label: str) -> None:
    names = [form.format(one, number) for one in (label, "x") for number in (1, 22)]
    assert classes(*names) == dict(zip(names, [label, label, "x", "x"], strict=True))


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["cat.1.jpg", "cat.2.jpg", "dog.1.jpg", "dog.x.jpg"], r"dog.x.jpg does not begin with the name of a class"),
        (["1.jpg", "2.jpg"], "1.jpg does not begin"),
        (["2021_1.jpg", "2021_2.jpg", "2022_1.jpg", "2022_2.jpg"], "does not begin"),
        (["PXL_20210101_1.jpg", "PXL_20210102_1.jpg"], "does not begin"),
        (["cat.1.jpg", "cat.2.jpg"], "all file names begin alike"),
        (["cat.1.jpg", "cat.2.jpg", "vase.1.jpg"], "'vase' would be a class of one picture"),
        (["IMG_1.jpg", "IMG_2.jpg", "DSC_1.jpg", "DSC_2.jpg"], "'IMG' is how cameras and programs begin names"),
    ],
)
def test_names_that_do_not_tell(names: list[str], why: str) -> None:
    found = classes(*names)
    assert isinstance(found, str)
    assert why in found
