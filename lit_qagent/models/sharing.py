"""Whether a model keeps apart the sequences that share a row, and how: tried out, not assumed."""

import logging
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from lit_qagent.data.batch import collate_sequences
from lit_qagent.data.rendering import TokenSequence
from lit_qagent.models.attention import branch_mask, branches_of
from lit_qagent.models.flex import BLOCK, flex_obstacle

if TYPE_CHECKING:
    from lit_qagent.models.backbone import Backbone

Way = Literal["branches", "mask"]
"""How a row's sequences are told who sees whom: by their branches, or by a dense mask."""

_log = logging.getLogger(__name__)
_PROBE_IDS = (0, 1, 2, 3)


def find_way(backbone: "Backbone") -> Way | None:
    """Return the fastest way to share a row that a try confirms, None if there is none."""
    device = backbone.language_model.device
    for way in ways_to_try(backbone.spec.attention, device):
        try:
            return way if keeps_branches_apart(backbone, way) else None
        except Exception as error:  # compilers raise errors of many kinds
            reason = " ".join(str(error).split())[:300]
            _log.info("%s takes no packed row by %s: %s", backbone.spec.name, way, reason)
            if way == "branches" and device.type != "cpu":
                _warn_of_dense_mask(reason)
    return None


def ways_to_try(attention: str, device: torch.device) -> tuple[Way, ...]:
    """Return how a row may be shared, the fastest way first."""
    if attention != "sdpa":
        return ("mask",)
    if device.type == "cpu":
        return ("branches",)
    obstacle = flex_obstacle(device)
    if obstacle is None:
        return ("branches", "mask")
    _warn_of_dense_mask(obstacle)
    return ("mask",)


def _warn_of_dense_mask(reason: str) -> None:
    _log.warning(
        "a dense mask is used instead of FlexAttention (%s): the numbers are the same, but time "
        "and memory grow with the square of the tokens of a row; keep data.max_tokens low",
        reason,
    )


@torch.no_grad()
def keeps_branches_apart(backbone: "Backbone", way: Way) -> bool:
    """Try it: a row of two branches gives the hidden states of two separate sequences."""
    device = backbone.language_model.device
    # On a GPU over a block of tokens, so that what is compiled for it serves training too.
    num_prompts = 2 if device.type == "cpu" else BLOCK // len(_PROBE_IDS) + 1

    def last_states(rows: list[list[TokenSequence]]) -> Tensor:
        batch = collate_sequences(rows).to(device)
        fast = batch.is_branched and way == "branches"
        mask = branch_mask(batch.visible_until) if batch.is_branched else batch.is_token
        states = backbone(
            batch.token_ids,
            batch.position_ids,
            None if fast else mask,
            branches_of(batch) if fast else None,
        )
        return states.flatten(0, 1)[batch.last_tokens].float()  # type: ignore[no-any-return]

    sequences = [TokenSequence([*_PROBE_IDS] * num_prompts, [first, 1]) for first in (2, 3)]
    packed = last_states([sequences])
    alone = torch.cat([last_states([[one]]) for one in sequences])
    return torch.allclose(packed, alone, rtol=0.05, atol=0.05 * float(alone.abs().max()))
