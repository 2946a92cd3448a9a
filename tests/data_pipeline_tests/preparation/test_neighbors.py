import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.preparation import neighbors
from data_pipeline.preparation.neighbors import nearest_neighbors
from data_pipeline.preparation.synthetic import synthetic_hands
from data_pipeline.user_error import UserError

BANK = synthetic_hands(300, seed=0)
LABELS = synthetic_hands(60, seed=1)


def distances_by_hand(labels, bank):
    """The distance of each label from each pose of the bank, root mean square over joints, in float64."""
    labels, bank = (array.astype(float) - array.astype(float).mean(axis=1, keepdims=True) for array in (labels, bank))
    return np.sqrt(((labels[:, None] - bank[None]) ** 2).sum(axis=3).mean(axis=2))


@pytest.mark.parametrize("n_pairs", [1, 7 * 300, 10**9])
@pytest.mark.parametrize("k", [1, 5, 300])
def test_neighbours_are_those_of_a_count_by_hand_however_many_are_compared_at_a_time(monkeypatch, k, n_pairs):
    monkeypatch.setattr(neighbors, "_PAIRS", n_pairs)
    found = nearest_neighbors(LABELS, BANK, k, is_same=False)
    expected = distances_by_hand(LABELS, BANK)
    assert found.rows.dtype == np.int32
    np.testing.assert_allclose(found.distances_mm, np.sort(expected, axis=1)[:, :k], rtol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(expected, found.rows.astype(int), 1), found.distances_mm, rtol=1e-4)


def test_no_pose_is_its_own_neighbour():
    found = nearest_neighbors(BANK, BANK, 299, is_same=True)
    assert all(sorted([*row, i]) == list(range(300)) for i, row in enumerate(found.rows.tolist()))
    expected = distances_by_hand(BANK, BANK)
    np.fill_diagonal(expected, np.inf)
    np.testing.assert_allclose(found.distances_mm, np.sort(expected, axis=1)[:, :299], rtol=1e-3, atol=1e-2)


@given(n_copies=st.integers(2, 12), k=st.integers(1, 4))
def test_no_pose_is_its_own_neighbour_among_copies_of_itself_either(n_copies, k):
    """It is not defined which copies are found, so a pose itself may not be among them."""
    bank = np.concatenate([np.repeat(BANK[:1], n_copies, axis=0), BANK[100:110]])
    found = nearest_neighbors(bank, bank, k, is_same=True)
    assert not (found.rows == np.arange(len(bank))[:, None]).any()
    assert all(len(set(row)) == k for row in found.rows.tolist())
    n_same = min(k, n_copies - 1)
    assert (found.rows[:n_copies, :n_same] < n_copies).all()
    np.testing.assert_allclose(found.distances_mm[:n_copies, :n_same], 0, atol=1e-2)


def test_where_a_hand_is_does_not_matter_but_how_it_is_turned_does():
    moved = LABELS + np.float32([30, -20, 100])
    turned = LABELS * np.float32([-1, -1, 1])
    same, other = (nearest_neighbors(labels, LABELS, 1, is_same=False) for labels in (moved, turned))
    np.testing.assert_array_equal(same.rows[:, 0], np.arange(len(LABELS)))
    assert other.distances_mm.min() > 10


@pytest.mark.parametrize(("k", "is_same"), [(0, False), (-1, False), (61, False), (60, True)])
def test_more_neighbours_than_there_are_are_refused(k, is_same):
    has = f"but the bank has {60 - is_same} {'other poses' if is_same else 'poses'};"
    with pytest.raises(UserError, match=rf"^{k} neighbours requested, {has}.*expected .* 1 to {60 - is_same}$"):
        nearest_neighbors(LABELS, LABELS, k, is_same=is_same)


def test_a_bank_of_other_joints_is_refused():
    with pytest.raises(UserError, match="the bank has 14 joints, but the dataset has 21"):
        nearest_neighbors(LABELS, LABELS[:, :14], 1, is_same=False)


def test_in_a_bank_of_the_label_alone_there_are_none():
    with pytest.raises(UserError, match=r"1 neighbours requested, but the bank has 0 other poses$"):
        nearest_neighbors(LABELS[:1], LABELS[:1], 1, is_same=True)


def test_where_a_row_itself_was_not_found_among_its_doubles_the_farthest_goes():
    distances, found = np.array([[0.0, 0.1, 5.0], [0.0, 0.1, 5.0]]), np.array([[3, 4, 5], [3, 1, 5]])
    left = neighbors._without_self(distances, found, np.array([0, 1]))
    assert [array.tolist() for array in left] == [[[0.0, 0.1], [0.0, 5.0]], [[3, 4], [3, 5]]]


def test_the_facts_are_the_mean_distances():
    found = nearest_neighbors(LABELS, BANK, 5, is_same=False)
    nearest = np.sort(distances_by_hand(LABELS, BANK), axis=1)
    assert found.facts == {
        "samples": 60,
        "bank": 300,
        "neighbors": 5,
        "mean_distance_of_nearest_mm": pytest.approx(nearest[:, 0].mean(), rel=1e-4),
        "mean_distance_of_farthest_mm": pytest.approx(nearest[:, 4].mean(), rel=1e-4),
    }
