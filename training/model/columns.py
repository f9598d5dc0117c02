"""Names of the columns in tables of answers: a class may be called like a column that is there already."""

from __future__ import annotations

from collections.abc import Sequence

ANSWER = ("path", "label")  # of the registered model's answers, and of Spark's table of them
EVALUATED = ("path", "sha256", "label", "prediction")  # of models/predictions.csv
SCORED = ("path", "label", "prediction", "refused")  # of training.score


def of_classes(classes: Sequence[str], taken: Sequence[str]) -> list[str]:
    """The columns of the probabilities beside the columns `taken`: the classes, or else `probability of label`.

    Upper and lower case make no other name, as in Spark and in many databases.
    """
    others = {name.lower() for name in taken}
    columns = []
    for name in classes:
        column = name
        while column.lower() in others or (column != name and column in classes):
            column = f"probability of {column}"
        columns.append(column)
    return columns
