"""Q from log-probabilities, by hand."""

from typing import Any, Literal

import pytest
import torch

from lit_qagent.core.errors import CheckpointError, ConfigError
from lit_qagent.models.q_heads import (
    ActionEvidence,
    BothQHeads,
    ImplicitQHead,
    QHead,
    ScalarQHead,
    make_head,
)

EVIDENCE = ActionEvidence(
    log_probs=torch.tensor([-4.0, -9.0]),
    reference_log_probs=torch.tensor([-6.0, -8.0]),
    num_tokens=torch.tensor([4, 2]),
    last_hidden=torch.tensor([[1.0, 2.0], [0.0, -1.0]]),
)


def weighted(head: QHead) -> QHead:
    """Attach a head to hidden states of size 2 and give its linear layer plain numbers."""
    head.attach(2)
    for name, parameter in head.named_parameters():
        parameter.data[:] = torch.tensor([0.5, 0.25]) if "weight" in name else 0.125
    return head


def test_scalar_q_is_linear_in_the_last_hidden_state() -> None:
    # 0.5 * 1 + 0.25 * 2 + 0.125 and -0.25 + 0.125.
    assert weighted(ScalarQHead())(EVIDENCE).tolist() == [1.125, -0.125]


def test_scalar_q_is_zero_before_training_and_attaching_again_keeps_the_weights() -> None:
    head = ScalarQHead()
    head.attach(2)
    assert head(EVIDENCE).tolist() == [0.0, 0.0]

    weighted(head).attach(2)

    assert head(EVIDENCE).tolist() == [1.125, -0.125]


def test_scalar_q_is_float32_also_of_half_weights() -> None:
    head = weighted(ScalarQHead()).to(torch.bfloat16)
    half = EVIDENCE._replace(last_hidden=torch.ones(2, 2, dtype=torch.bfloat16))

    assert head(half).dtype == torch.float32


@pytest.mark.parametrize(
    ("score_by", "expected"), [("implicit", [1.0, -0.5]), ("scalar", [1.125, -0.125])]
)
def test_both_heads_are_trained_and_the_one_named_scores(
    score_by: Literal["implicit", "scalar"], expected: list[float]
) -> None:
    head = weighted(BothQHeads(beta=0.5, regression=0.1, score_by=score_by))

    trained = head.trained(EVIDENCE)

    assert head(EVIDENCE).tolist() == expected
    assert next(iter(trained.values())).tolist() == expected
    assert {h.kind: q.tolist() for h, q in trained.items()} == {
        "implicit": [1.0, -0.5],
        "scalar": [1.125, -0.125],
    }
    assert {h.kind: (h.beta, h.regression) for h in trained} == {
        "implicit": (0.5, 0.0),
        "scalar": (1.0, 0.1),
    }


def test_a_scalar_head_without_hidden_states_is_refused() -> None:
    with pytest.raises(ValueError, match="needs last_hidden and to be attached"):
        ScalarQHead()(EVIDENCE)


def test_implicit_q_is_beta_times_the_log_ratio() -> None:
    # 0.5 * (-4 + 6) and 0.5 * (-9 + 8).
    assert ImplicitQHead(beta=0.5)(EVIDENCE).tolist() == [1.0, -0.5]


def test_mean_divides_by_the_tokens_of_the_action() -> None:
    assert ImplicitQHead(beta=0.5, reduction="mean")(EVIDENCE).tolist() == [0.25, -0.25]


def test_implicit_q_without_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="reference_log_probs, got None"):
        ImplicitQHead()(EVIDENCE._replace(reference_log_probs=None))


def test_more_values_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="regression must be >= 0, got -1"):
        ScalarQHead(regression=-1)
    with pytest.raises(ConfigError, match="score_by must be implicit or scalar, got 'x'"):
        BothQHeads(score_by="x")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [ScalarQHead(0.5), BothQHeads(0.2, "mean", 0.5, "scalar")])
def test_other_heads_are_made_again_from_their_settings(kind: QHead) -> None:
    assert make_head(kind.kind, kind.settings()).settings() == kind.settings()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "beta must be above 0, got 0.0"),
        ({"reduction": "max"}, "reduction must be sum or mean, got 'max'"),
    ],
)
def test_values_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ImplicitQHead(**settings)


def test_a_head_is_made_again_from_its_settings() -> None:
    head = ImplicitQHead(beta=0.3, reduction="mean")

    assert make_head(head.kind, head.settings()).settings() == {"beta": 0.3, "reduction": "mean"}


def test_an_unknown_kind_names_those_there_are() -> None:
    with pytest.raises(
        CheckpointError, match="'oracle', this program knows both, implicit, scalar"
    ):
        make_head("oracle", {})


def test_settings_of_another_head_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"\{'width': 3\} do not fit .* 'implicit'"):
        make_head("implicit", {"width": 3})
