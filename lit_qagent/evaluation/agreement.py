"""How far the learned Q ranks sibling actions as a search does: Kendall's tau by depth.

The siblings come from trees of tasks that were not trained on, such as the validation split::

    python -m data_collection collect ... --split valid --store runs/x/valid_trees
    python -m data_collection pairs --store runs/x/valid_trees --rule all_siblings --output PAIRS
    python -m lit_qagent predict ... --data.play.siblings PAIRS

The pairs are made without filters: those that leave out the pairs of little difference, say, would
leave the sets that are easy to rank.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lit_qagent.agents.prompts import PromptSpec, differing_forms
from lit_qagent.agents.selection import Scorer, finite_scores
from lit_qagent.core import manifest
from lit_qagent.core.errors import ConfigError, ContextOverflow, OverlapError
from lit_qagent.core.pairs import PreferencePair
from lit_qagent.core.records import History
from lit_qagent.evaluation.lineage import differing_settings

AGREEMENT_FILE = "agreement.json"
_RULE = "all_siblings"
_THEN = "in the search"
# Of two actions with one command there is none to choose, so nothing is missing without them.
_HARMLESS = "distinct_commands"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SiblingSet:
    """Actions after one history, and what a search found each to be worth.

    Attributes:
        history: The chat before them.
        values: Action -> ``Q_hat``.
    """

    history: History
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Siblings:
    """The siblings of a folder of pairs.

    Attributes:
        sets: In the order of the pairs.
        pairs_hash: The hash of the pairs.
        other_world: In what the world that was searched differs from the one that is played; empty
            if it is the same.
    """

    sets: list[SiblingSet]
    pairs_hash: str
    other_world: list[str]


def read_siblings(
    folder: Path,
    lineage: Mapping[str, Any],
    *,
    environment: Mapping[str, Any],
    prompt: PromptSpec,
) -> Siblings:
    """Read the siblings of a folder of pairs; say so if another world was searched.

    Args:
        folder: Pairs by the rule ``all_siblings``.
        lineage: ``task_ids`` holds the tasks that the Q-model was trained on.
        environment: `Environment.settings` of the world that is played.
        prompt: How that world is shown.

    Raises:
        DataError: The folder is missing or damaged.
        ConfigError: Its pairs were made by another rule or with a filter, so siblings are missing,
            or from prompts of another form.
        OverlapError: The Q-model was trained on some of its tasks.
    """
    from lit_qagent.data.pairs import read_pairs

    found = read_pairs(folder)
    _check_rule(folder, found.card.rule)
    differing = differing_forms(prompt, found.card.prompt, when=_THEN)
    if differing:
        raise ConfigError(
            f"play.siblings {str(folder)!r} holds other prompts than are played: "
            f"{'; '.join(differing)}; search its tasks with the prompt settings of this run"
        )
    _check_tasks(folder, found.card.task_ids, lineage)
    other_world = differing_settings(environment, found.card.environment, when=_THEN)
    if other_world:
        _log.warning(
            "the search behind play.siblings was in another world than is played: %s",
            "; ".join(other_world),
        )
    return Siblings(
        sets=_sets(found.pairs), pairs_hash=found.card.pairs_hash, other_world=other_world
    )


def _check_rule(folder: Path, rule: Mapping[str, Any]) -> None:
    if rule.get("name") != _RULE:
        raise ConfigError(
            f"play.siblings {str(folder)!r} holds pairs of rule {rule.get('name')!r}; make them "
            f"with `python -m data_collection pairs --rule {_RULE}` from trees of held-out tasks"
        )
    filters = {name: value for name, value in rule.items() if _may_leave_out(name, value)}
    if filters:
        given = ", ".join(f"{name} {value}" for name, value in filters.items())
        off = " ".join(f"--{name} {_off(name, value)}" for name, value in filters.items())
        raise ConfigError(
            f"play.siblings {str(folder)!r} was filtered ({given}): without the pairs left out, "
            "the agreement would be that of a selection; make the pairs anew with the filters "
            f"off, `python -m data_collection pairs --rule {_RULE} {off}`"
        )


def _may_leave_out(option: str, value: Any) -> bool:  # noqa: ANN401 (a JSON value)
    """Return whether an option of a rule is a filter that is on and not harmless.

    No margin up to 0 leaves anything out, as the rule pairs no equal values.
    """
    if option in ("name", _HARMLESS) or value is None or value is False:
        return False
    return option != "min_margin" or value > 0


def _off(option: str, value: Any) -> str:  # noqa: ANN401 (a JSON value)
    """Return the value that switches a filter off."""
    if option == "min_margin":
        return "0"
    return "false" if value is True else "null"


def _check_tasks(folder: Path, task_ids: Sequence[str], lineage: Mapping[str, Any]) -> None:
    shared = sorted(set(task_ids) & set(lineage.get("task_ids", ())))
    if shared:
        raise OverlapError(
            f"{len(shared)} tasks of play.siblings {str(folder)!r} were used to train the Q-model "
            f"({', '.join(shared[:3])}{', ...' if shared[3:] else ''}); search held-out tasks"
        )


def _sets(pairs: Sequence[PreferencePair]) -> list[SiblingSet]:
    from lit_qagent.data.pairs import pair_history

    sets: dict[History, SiblingSet] = {}
    for pair in pairs:
        history = pair_history(pair)
        values = sets.setdefault(history, SiblingSet(history=history)).values
        values[pair.chosen[-1]["content"]] = pair.q_chosen
        values[pair.rejected[-1]["content"]] = pair.q_rejected
    return list(sets.values())


class Agreement(NamedTuple):
    """How far Q ranks siblings as a search did.

    Attributes:
        by_depth: One row per depth, see `measure_agreement`.
        too_long: Sets left out, as they are longer than the Q-model's context.
    """

    by_depth: list[dict[str, Any]]
    too_long: int = 0


async def measure_agreement(sets: Sequence[SiblingSet], scorer: Scorer) -> Agreement:
    """Compare the order of siblings by Q with that by a search.

    Returns:
        A row per depth: ``depth``; ``sets`` of siblings with different ``Q_hat``; ``actions`` in
        them; ``tau``, the mean of Kendall's tau over the sets; ``best_picked``, the share of sets
        in which the action of highest Q is one of highest ``Q_hat``. Where several actions have
        the highest Q, a set counts by the share of them that are of highest ``Q_hat``, as if one
        were drawn.

    Raises:
        ModelError: A value of the scorer is not finite.
    """
    from lit_qagent.training.pair_table import rank_agreement

    by_depth: defaultdict[int, list[tuple[int, float, float]]] = defaultdict(list)
    too_long = 0
    for one in sets:
        try:
            q = await finite_scores(scorer, one.history, list(one.values))
        except ContextOverflow:
            too_long += 1
            continue
        actions = list(zip(q, one.values.values(), strict=True))
        tau = rank_agreement(actions)
        if tau is not None:
            by_depth[one.history.num_steps].append((len(actions), tau, _best_share(actions)))
    if too_long:
        _log.warning("%d sets of play.siblings exceed model.max_length and are left out", too_long)
    rows = [
        {
            "depth": depth,
            "sets": len(found),
            "actions": sum(count for count, _, _ in found),
            "tau": sum(tau for _, tau, _ in found) / len(found),
            "best_picked": sum(picked for _, _, picked in found) / len(found),
        }
        for depth, found in sorted(by_depth.items())
    ]
    return Agreement(rows, too_long)


def _best_share(actions: Sequence[tuple[float, float]]) -> float:
    """Return the share of the actions of highest Q that are of highest value."""
    highest_q = max(q for q, _ in actions)
    best = max(value for _, value in actions)
    picked = [value for q, value in actions if q == highest_q]
    return sum(value == best for value in picked) / len(picked)


def write_agreement(folder: Path, agreement: Agreement, identity: Mapping[str, Any]) -> None:
    """Keep the agreement in a results folder.

    Args:
        folder: The results folder.
        agreement: From `measure_agreement`.
        identity: What they were measured on: ``lineage_hash`` of the Q-model, ``pairs_hash`` and
            ``other_world`` of the siblings.
    """
    manifest.write_json(folder / AGREEMENT_FILE, {**identity, **agreement._asdict()})


def read_agreement(folder: Path, lineage_hash: str) -> dict[str, Any]:
    """Return what `write_agreement` wrote for a Q-model; without any, no rows.

    Args:
        folder: The results folder.
        lineage_hash: Of the Q-model; rows that were measured with another one are left out.
    """
    path = folder / AGREEMENT_FILE
    found = manifest.read(path, "Results folder") if path.exists() else {}
    return found if found.get("lineage_hash") == lineage_hash else {"by_depth": []}
