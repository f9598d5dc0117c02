import numpy as np
import pytest

from training.labels.held_out import Learnt

pytestmark = pytest.mark.torch


def learnt(per_class: int = 40, wrong: int = 0, copies: int = 1) -> tuple[Learnt, np.ndarray]:
    """Two classes of 8 features that are far apart; `wrong` labels of each are exchanged, and `copies` of every row."""
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], per_class)
    features = (random.normal(0, 1, (2 * per_class, 8)) + 4 * labels[:, None]).astype(np.float32)
    given = labels.copy()
    bad = np.concatenate([np.arange(wrong), per_class + np.arange(wrong)]).astype(int)
    given[bad] = 1 - given[bad]
    rows = np.repeat(np.arange(2 * per_class), copies)
    nothing = np.zeros((4, 8), np.float32)
    return Learnt(features[rows], given[rows], rows, 2, 0.1, nothing, 0), np.isin(rows, bad)


def test_wrong_labels_are_contradicted_by_heads_that_did_not_see_them() -> None:
    data, bad = learnt(wrong=2)
    answers = data.run()
    doubt = answers.noise.wrong(answers.logits, data.labels)
    assert set(np.argsort(-doubt)[:4]) == set(np.flatnonzero(bad))
    assert (doubt[bad] > 0.5).all()
    assert answers.noise.interval[0] < 4 / 80 < answers.noise.interval[1]


def test_near_duplicates_are_held_out_together_and_weigh_as_one() -> None:
    data, _ = learnt(per_class=15, copies=3)
    assert all(len(set(data.fold[data.groups == group])) == 1 for group in range(30))
    assert np.bincount(data.fold).tolist() == [18] * 5
    assert data.weights.sum() == pytest.approx(30)


def test_copies_with_a_wrong_label_do_not_defend_each_other() -> None:
    data, bad = learnt(wrong=1, copies=4)
    answers = data.run()
    assert (answers.logits.argmax(1) != data.labels).tolist() == bad.tolist()


def test_others_are_answered_by_all_heads() -> None:
    data, _ = learnt()
    answers = data.run()
    assert len(answers.heads) == 5
    assert answers.others(np.array([[0.0] * 8, [4.0] * 8], np.float32)).argmax(1).tolist() == [0, 1]


def test_a_class_keeps_its_pictures_though_most_look_wrong() -> None:
    data, _ = learnt(per_class=10)
    likely = np.ones(20, bool)
    likely[2:10] = False
    likely[12] = False
    assert data._kept(likely).tolist() == [True] * 12 + [False] + [True] * 7
