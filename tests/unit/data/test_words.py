import pytest

from data.layout.words import hinted, split_of


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        *(
            (name, "train")
            for name in ("train", "Training", "TRAIN", "training_set", "train-set", "Train Set", "train2017")
        ),
        *((name, "validation") for name in ("val", "Valid", "validation", "dev", "val_images", "validationset")),
        *((name, "test") for name in ("test", "Testing", "test_set", "eval", "test1", "test_data")),
        *((name, None) for name in ("trains", "trainee", "set", "1", "", "latest", "tests", "protest", "cats_train")),
    ],
)
def test_names_of_splits(folder: str, split: str | None) -> None:
    assert split_of(folder) == split


def test_names_that_only_speak_of_a_split() -> None:
    assert [hinted(name) for name in ("cats_train", "test-b", "steam train", "trainee")] == [
        "train",
        "test",
        "train",
        None,
    ]
