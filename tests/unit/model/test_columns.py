from __future__ import annotations

from training.model.columns import ANSWER, SCORED, of_classes


def test_classes_are_columns() -> None:
    assert of_classes(("cat", "US$ / A$"), SCORED) == ["cat", "US$ / A$"]


def test_a_class_called_like_a_column_has_a_column_of_its_own() -> None:
    assert of_classes(("label", "Path", "refused"), ANSWER) == [
        "probability of label",
        "probability of Path",
        "refused",
    ]
    classes = ("label", "probability of label")
    assert of_classes(classes, SCORED) == ["probability of probability of label", "probability of label"]
