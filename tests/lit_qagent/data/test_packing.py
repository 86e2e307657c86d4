"""A packed row holds every distinct prefix once and lets each token see its own prefix only."""

from hypothesis import given
from hypothesis import strategies as st

from lit_qagent.data.packing import pack_row
from tests.reference import reference_prefixes

SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=6)


def test_a_pair_shares_its_prompt() -> None:
    row = pack_row([[7, 8, 3], [7, 8, 1, 2]])

    assert row.token_ids == [7, 8, 1, 2, 3]
    assert row.position_ids == [0, 1, 2, 3, 2]
    assert row.visible_until == [5, 5, 4, 4, 5]
    assert row.paths == [[0, 1, 4], [0, 1, 2, 3]]


def test_a_sequence_may_end_inside_another() -> None:
    row = pack_row([[5, 6], [5, 6, 7], [5, 6]])

    assert row.token_ids == [5, 6, 7]
    assert row.paths == [[0, 1], [0, 1, 2], [0, 1]]
    assert row.visible_until == [3, 3, 3]


@given(SEQUENCES)
def test_every_prefix_is_there_once(sequences: list[list[int]]) -> None:
    row = pack_row(sequences)

    assert len(row.token_ids) == len(reference_prefixes(sequences))
    for sequence, path in zip(sequences, row.paths, strict=True):
        assert [row.token_ids[node] for node in path] == sequence
        assert [row.position_ids[node] for node in path] == list(range(len(sequence)))


@given(SEQUENCES)
def test_a_token_sees_exactly_its_own_prefix(sequences: list[list[int]]) -> None:
    row = pack_row(sequences)

    for path in row.paths:
        for position, query in enumerate(path):
            seen = [k for k in range(query + 1) if query < row.visible_until[k]]
            assert seen == path[: position + 1]
