"""Q from log-probabilities, by hand."""

from typing import Any

import pytest
import torch

from lit_qagent.core.errors import CheckpointError, ConfigError
from lit_qagent.models.q_heads import ActionEvidence, ImplicitQHead, make_head

EVIDENCE = ActionEvidence(
    log_probs=torch.tensor([-4.0, -9.0]),
    reference_log_probs=torch.tensor([-6.0, -8.0]),
    num_tokens=torch.tensor([4, 2]),
)


def test_implicit_q_is_beta_times_the_log_ratio() -> None:
    # 0.5 * (-4 + 6) and 0.5 * (-9 + 8).
    assert ImplicitQHead(beta=0.5)(EVIDENCE).tolist() == [1.0, -0.5]


def test_mean_divides_by_the_tokens_of_the_action() -> None:
    assert ImplicitQHead(beta=0.5, reduction="mean")(EVIDENCE).tolist() == [0.25, -0.25]


def test_implicit_q_without_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="needs reference_log_probs, got None"):
        ImplicitQHead()(EVIDENCE._replace(reference_log_probs=None))


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
    with pytest.raises(CheckpointError, match="kind 'oracle', this program knows implicit"):
        make_head("oracle", {})


def test_settings_of_another_head_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"\{'width': 3\} do not fit .* 'implicit'"):
        make_head("implicit", {"width": 3})
