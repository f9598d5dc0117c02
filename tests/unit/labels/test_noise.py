import numpy as np
import pytest

from training.labels import noise
from training.labels.noise import Floats, Labels


def answers(count: int, classes: int, sharp: float, seed: int = 0) -> tuple[Floats, Labels]:
    """Logits [count, classes], and labels that are drawn by their probabilities: nothing is wrong, much is doubtful."""
    random = np.random.default_rng(seed)
    logits = sharp * random.normal(0, 1, (count, classes))
    return logits, (logits + random.gumbel(size=logits.shape)).argmax(1)


def flipped(labels: Labels, classes: int, share: float) -> tuple[Labels, Labels]:
    random = np.random.default_rng(1)
    rows = random.choice(len(labels), round(share * len(labels)), replace=False)
    changed = labels.copy()
    changed[rows] = (changed[rows] + random.integers(1, classes, len(rows))) % classes
    return changed, rows


@pytest.mark.parametrize(("classes", "sharp"), [(2, 8.0), (6, 6.0)])
@pytest.mark.parametrize("share", [0.0, 0.03, 0.1])
def test_the_share_is_found_however_doubtful_the_pictures_are(classes: int, sharp: float, share: float) -> None:
    logits, labels = answers(3000, classes, sharp)
    given, _ = flipped(labels, classes, share)
    found = noise.fit(3 * logits, given, np.ones(len(given)))
    assert found.share == pytest.approx(share, abs=0.01)
    assert found.interval[0] <= share <= found.interval[1]
    assert found.interval[1] - found.interval[0] < 0.05
    assert found.temperature == pytest.approx(3, rel=0.2)


def test_the_wrong_labels_come_first_and_are_as_sure_as_they_are_wrong() -> None:
    logits, labels = answers(2000, 4, 10.0)
    given, rows = flipped(labels, 4, 0.05)
    found = noise.fit(logits, given, np.ones(len(given)))
    wrong = found.wrong(logits, given)
    assert len(set(np.argsort(-wrong)[: len(rows)]) & set(rows)) > 0.85 * len(rows)
    assert wrong.sum() == pytest.approx(len(rows), rel=0.1)
    assert wrong[np.setdiff1d(np.arange(2000), rows)].mean() < 0.02


def test_a_label_that_is_said_many_times_counts_once() -> None:
    logits, labels = answers(600, 3, 8.0)
    given, rows = flipped(labels, 3, 0.03)
    plain = noise.fit(logits, given, np.ones(600))
    again = np.concatenate([np.arange(600), np.repeat(rows, 9)])
    weights = np.where(np.isin(again, rows), 0.1, 1.0)
    repeated = noise.fit(logits[again], given[again], weights)
    assert repeated.share == pytest.approx(plain.share, abs=1e-3)
    assert repeated.interval == pytest.approx(plain.interval, abs=1e-3)


def test_no_wrong_label_among_few_pictures_promises_little() -> None:
    found = noise.fit(*answers(50, 2, 20.0), np.ones(50))
    assert (found.share, found.interval[0]) == (0.0, 0.0)
    assert 0.02 < found.interval[1] < 0.2
