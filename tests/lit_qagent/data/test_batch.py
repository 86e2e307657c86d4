"""The tensors of a batch, written out by hand."""

import copy
import pickle

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.plugins.precision import DeepSpeedPrecision, HalfPrecision, Precision

from lit_qagent.data.batch import PairTokens, collate_pairs
from lit_qagent.data.rendering import TokenSequence

PAIRS = [
    PairTokens(
        chosen=TokenSequence([10, 11], [20, 2]),
        rejected=TokenSequence([10, 11], [21, 22, 2]),
        q_chosen=1.0,
        q_rejected=-0.5,
        depth=0,
        visits=(5, 2),
    ),
    PairTokens(
        chosen=TokenSequence([10], [30]),
        rejected=TokenSequence([10], [31]),
        q_chosen=0.25,
        q_rejected=0.0,
        depth=3,
    ),
]


def test_without_sharing_each_sequence_has_a_row_padded_on_the_left() -> None:
    batch = collate_pairs(PAIRS, "none")
    tokens = batch.tokens

    assert tokens.token_ids.tolist() == [
        [0, 10, 11, 20, 2],  # chosen of pair 0
        [10, 11, 21, 22, 2],  # rejected of pair 0
        [0, 0, 0, 10, 30],  # chosen of pair 1
        [0, 0, 0, 10, 31],  # rejected of pair 1
    ]
    assert tokens.position_ids.tolist() == [
        [0, 0, 1, 2, 3],
        [0, 1, 2, 3, 4],
        [0, 0, 0, 0, 1],
        [0, 0, 0, 0, 1],
    ]
    assert tokens.is_token.int().tolist() == [
        [0, 1, 1, 1, 1],
        [1, 1, 1, 1, 1],
        [0, 0, 0, 1, 1],
        [0, 0, 0, 1, 1],
    ]
    # Rows of 5: the token before 20 is at 2, before 2 at 3; row 1 starts at 5, and so on.
    assert tokens.predictors.tolist() == [2, 3, 6, 7, 8, 13, 18]
    assert tokens.targets.tolist() == [20, 2, 21, 22, 2, 30, 31]
    assert tokens.sequence_of.tolist() == [0, 0, 1, 1, 1, 2, 3]
    assert tokens.num_action_tokens.tolist() == [2, 3, 1, 1]
    assert tokens.last_tokens.tolist() == [4, 9, 14, 19]
    assert not tokens.is_branched


def test_a_pair_in_one_row_has_its_prompt_once() -> None:
    tokens = collate_pairs(PAIRS, "pair").tokens

    assert tokens.token_ids.tolist() == [
        [10, 11, 20, 2, 21, 22, 2],
        [0, 0, 0, 0, 10, 30, 31],
    ]
    assert tokens.position_ids.tolist() == [
        [0, 1, 2, 3, 2, 3, 4],
        [0, 0, 0, 0, 0, 1, 1],
    ]
    assert tokens.visible_until.tolist() == [
        [7, 7, 4, 4, 7, 7, 7],
        [1, 2, 3, 4, 7, 6, 7],  # padding is visible to itself only
    ]
    # The prompt's last token (1 in row 0, 7 + 4 in row 1) predicts both first tokens.
    assert tokens.predictors.tolist() == [1, 2, 1, 4, 5, 11, 11]
    assert tokens.targets.tolist() == [20, 2, 21, 22, 2, 30, 31]
    assert tokens.sequence_of.tolist() == [0, 0, 1, 1, 1, 2, 3]
    assert tokens.last_tokens.tolist() == [3, 6, 12, 13]
    assert tokens.is_branched


def test_a_batch_in_one_row_has_every_prefix_once() -> None:
    tokens = collate_pairs(PAIRS, "batch").tokens

    assert tokens.token_ids.tolist() == [[10, 11, 20, 2, 21, 22, 2, 30, 31]]
    assert tokens.visible_until.tolist() == [[9, 7, 4, 4, 7, 7, 7, 8, 9]]
    assert tokens.predictors.tolist() == [1, 2, 1, 4, 5, 0, 0]


def test_labels_stay_with_their_pairs() -> None:
    batch = collate_pairs(PAIRS, "pair")

    assert batch.num_pairs == 2
    assert batch.tokens.num_sequences == 4
    assert batch.q_hat.tolist() == [1.0, -0.5, 0.25, 0.0]
    assert batch.visits.tolist() == [5, 2, 1, 1]
    assert batch.depth.tolist() == [0, 3]
    first, second = batch.history.tolist()
    assert first != second
    assert len(set(batch.action.tolist())) == 4
    assert batch.mean_over == 2
    assert batch.num_unshared_tokens == 13
    assert batch.reference_log_probs is None


def test_to_moves_every_tensor_and_keeps_the_rest() -> None:
    moved = collate_pairs(PAIRS, "pair").to("meta")

    tensors = [
        *(value for value in vars(moved).values() if isinstance(value, torch.Tensor)),
        *(value for value in vars(moved.tokens).values() if isinstance(value, torch.Tensor)),
    ]
    assert len(tensors) == 5 + 9
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.tokens.is_branched


def test_observations_in_an_episode_are_read_and_not_scored() -> None:
    episode = TokenSequence([10], [20, 2, 30, 31, 21, 2], observed=((2, 4),))
    pair = PairTokens(episode, TokenSequence([10], [40]), 1.0, 0.0, depth=0)

    tokens = collate_pairs([pair], "batch").tokens

    assert tokens.token_ids.tolist() == [[10, 20, 2, 30, 31, 21, 2, 40]]
    assert tokens.targets.tolist() == [20, 2, 21, 2, 40]
    assert tokens.predictors.tolist() == [0, 1, 4, 5, 0]  # 21 is said after 31
    assert tokens.sequence_of.tolist() == [0, 0, 0, 0, 1]
    assert tokens.num_action_tokens.tolist() == [4, 1]
    assert tokens.last_tokens.tolist() == [6, 7]


@pytest.mark.parametrize(
    "plugin",
    [DeepSpeedPrecision("bf16-mixed"), DeepSpeedPrecision("16-mixed"), HalfPrecision("bf16-true")],
)
def test_no_precision_rounds_labels_or_reference(plugin: Precision) -> None:
    batch = collate_pairs([pair._replace(reference=(-90.1, -3.3)) for pair in PAIRS], "batch")

    converted = plugin.convert_input(batch)

    assert converted.q_hat.dtype == converted.visits.dtype == torch.float32
    assert converted.q_hat.tolist() == [1.0, -0.5, 0.25, 0.0]
    assert converted.reference_log_probs.dtype == torch.float32
    assert converted.reference_log_probs.tolist() == pytest.approx([-90.1, -3.3] * 2, abs=1e-5)


def test_a_batch_moves_with_all_of_its_tensors() -> None:
    batch = collate_pairs(PAIRS, "batch")

    moved = move_data_to_device(batch, "meta")

    assert {moved.q_hat.device.type, moved.tokens.token_ids.device.type} == {"meta"}
    assert (moved.names, moved.reference_log_probs) == (batch.names, None)
    assert batch.q_hat.device.type == "cpu"


def test_a_batch_stays_as_it_is() -> None:
    batch = collate_pairs(PAIRS, "batch")

    repeated = batch.changed(is_repeat=True)

    assert (batch.is_repeat, repeated.is_repeat) == (False, True)
    assert repeated.tokens is batch.tokens
    for again in (pickle.loads(pickle.dumps(repeated)), copy.deepcopy(repeated)):
        assert again.is_repeat
        assert torch.equal(again.tokens.targets, batch.tokens.targets)
    with pytest.raises(AttributeError, match=r"PairBatch.is_repeat cannot be set; use changed"):
        batch.is_repeat = True  # type: ignore[misc]
    with pytest.raises(TypeError, match="PairBatch has other fields than given: other"):
        batch.changed(other=1)
