"""Whether a model keeps apart the sequences that share a row, and how: tried out, not assumed."""

import logging
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lit_qagent.data.batch import collate_sequences
from lit_qagent.data.rendering import TokenSequence
from lit_qagent.models.attention import BRANCH_ATTENTION, Segment, branch_mask, branches_of
from lit_qagent.models.cached_attention import Group, LayerMemory
from lit_qagent.models.flex import BLOCK, flex_obstacle
from lit_qagent.models.rope import rope_limits

if TYPE_CHECKING:
    from lit_qagent.models.backbone import Backbone

Way = Literal["branches", "mask"]
"""How a row's sequences are told who sees whom: by their branches, or by a dense mask."""

_log = logging.getLogger(__name__)
_NUM_PROBES = 4
_MAX_ERROR = {"float32": 0.005, "bfloat16": 0.05}  # of hidden states, relative


def longest_shared(config: Any) -> int:  # noqa: ANN401 (any model's configuration)
    """Return the most tokens of a sequence that may share a row, by a configuration; 0 is none.

    In a row a token sees its whole sequence, so a window that the sequence never leaves is none.
    That holds for `sliding_window`, which is part of the mask that ours stands in for. What else
    is called a window a model applies by itself, to the columns of the row: then none may share.
    """
    kinds = set(getattr(config, "layer_types", None) or ())
    window: int | None = getattr(config, "sliding_window", None)
    if not kinds <= {"full_attention", "sliding_attention"} or _has_window_of_its_own(config):
        return 0
    limits = rope_limits(config)
    if "sliding_attention" in kinds or (window and not kinds):
        limits.append(window or 0)
    return min(limits, default=sys.maxsize)


def _has_window_of_its_own(config: Any) -> bool:  # noqa: ANN401
    """Whether attention is local in a way that transformers' masks do not show, as in GPT-Neo.

    A try does not tell: its short row never leaves a window of usual size.
    """
    return any(
        name != "sliding_window"
        and name.endswith(("window", "window_size", "attention_chunk_size"))
        and not isinstance(value, bool)  # such as use_sliding_window
        and isinstance(value, int)
        and value > 0
        for name, value in vars(config).items()
    )


def find_way(backbone: "Backbone") -> Way | None:
    """Return the fastest way to share a row that a try confirms, None if there is none."""
    device = backbone.language_model.device
    missed: str | None = None
    for way in ways_to_try(backbone.attention, device):
        reason = _obstacle(backbone, way)
        if reason is None:
            if missed is not None:
                _warn_of_dense_mask(missed)
            return way
        _log.info("%s takes no packed row by %s: %s", backbone.spec.name, way, reason)
        missed = reason
    return None


def _obstacle(backbone: "Backbone", way: Way) -> str | None:
    """Return why a row cannot be shared in a way, None if it can."""
    try:
        kept = keeps_branches_apart(backbone, way)
    except Exception as error:  # compilers raise errors of many kinds
        return " ".join(str(error).split())[:300]
    return None if kept else "its states are not those of sequences on their own"


def ways_to_try(attention: str, device: torch.device) -> tuple[Way, ...]:
    """Return how a row may be shared by an attention of this name, the fastest way first."""
    if attention != BRANCH_ATTENTION:
        return ("mask",)
    obstacle = None if device.type == "cpu" else flex_obstacle(device)
    if obstacle is None:
        return ("branches", "mask")
    _warn_of_dense_mask(obstacle)
    return ("mask",)


def _warn_of_dense_mask(reason: str) -> None:
    _log.warning(
        "a dense mask is used instead of attention by branches (%s): the numbers are the same, but "
        "time and memory grow with the square of the tokens of a row; keep data.max_tokens low",
        reason,
    )


@torch.no_grad()
def keeps_branches_apart(backbone: "Backbone", way: Way) -> bool:
    """Try it: a row of branches gives the hidden states of sequences on their own.

    Compared is the mean error, as single states may be far off by rounding alone. In bfloat16
    SmolLM2's is 0.01; branches that see those before them make it 0.3.
    """
    device = backbone.language_model.device
    # On a GPU over a block of tokens, so that what is compiled for it serves training too.
    sequences = _probes(backbone, num_prompt=8 if device.type == "cpu" else BLOCK)

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

    # Without the adapter: training may make a model touchy, not its attention. Without autocast,
    # which rounds more than the tolerance of a float32 model allows.
    as_it_is = backbone.reference() if backbone.is_adapted else nullcontext()
    with as_it_is, torch.autocast(device.type, enabled=False):
        packed = last_states([sequences])
        alone = torch.cat([last_states([[one]]) for one in sequences])
    error = (packed - alone).norm() / alone.norm()
    return bool(error < _MAX_ERROR[backbone.spec.dtype])


@torch.no_grad()
def decodes_groups(backbone: "Backbone") -> bool:
    """Try it: a history in a group gives the hidden states of one by itself.

    Models that hand nothing on to their attention, such as StableLM, never see the group.
    """
    [sequence, *_] = _probes(backbone, num_prompt=8)
    batch = collate_sequences([[sequence]]).to(backbone.language_model.device)
    num_tokens = batch.token_ids.shape[1]
    root = Segment(start=0, end=num_tokens, ancestors=torch.zeros(0, dtype=torch.int64))
    group = Group.of([root], LayerMemory(num_new=num_tokens), device=batch.token_ids.device)
    as_it_is = backbone.reference() if backbone.is_adapted else nullcontext()
    with as_it_is, torch.autocast(batch.token_ids.device.type, enabled=False):
        alone = backbone(batch.token_ids, batch.position_ids, batch.is_token).float()
        try:
            kept = backbone.decode_groups(batch.token_ids, batch.position_ids, [group]).float()
        except (TypeError, AttributeError, RuntimeError) as error:
            _log.info("%s keeps no histories: %s", backbone.spec.name, error)
            return False
    return bool((kept - alone).norm() / alone.norm() < _MAX_ERROR[backbone.spec.dtype])


def _probes(backbone: "Backbone", *, num_prompt: int) -> list[TokenSequence]:
    """Return branches long enough for each to be changed by those before it.

    Of ordinary tokens: the first ids are special ones in most vocabularies, and a text made of
    those is computed so roughly that rounding cannot be told from mistakes.
    """
    vocab_size: int = backbone.language_model.config.get_text_config().vocab_size
    ids = [(7 + 101 * k) % vocab_size for k in range(num_prompt + 8 * _NUM_PROBES)]
    prompt, rest = ids[:num_prompt], ids[num_prompt:]
    return [TokenSequence(prompt, rest[k::_NUM_PROBES]) for k in range(_NUM_PROBES)]
