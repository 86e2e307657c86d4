"""The report of an evaluation, made from its folder alone: JSON, Markdown and one HTML page."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment as Templates
from jinja2 import FileSystemLoader, StrictUndefined, select_autoescape

from lit_qagent.agents.selection import AdaptiveQSelector, OracleSelector
from lit_qagent.core import manifest
from lit_qagent.core.errors import StoreError
from lit_qagent.core.records import Usage
from lit_qagent.evaluation import tables
from lit_qagent.evaluation.agreement import read_agreement
from lit_qagent.evaluation.cost import (
    candidates_per_decision,
    cost_per_episode,
    cost_ratio,
    dollars,
    is_matched,
    nearest_in_cost,
)
from lit_qagent.evaluation.depths import decisions_by_depth, is_cross_fitted, regret_by_depth
from lit_qagent.evaluation.differences import difference_rows
from lit_qagent.evaluation.episodes import TRAJECTORIES_GLOB, PlayedEpisode, read_episodes
from lit_qagent.evaluation.header import (
    actions_text,
    cost_note,
    hashes_of,
    policy_text,
    q_model_text,
)
from lit_qagent.evaluation.outcomes import choose_examples, count_outcomes
from lit_qagent.evaluation.plots import curve_plots, difference_plot, reward_plot
from lit_qagent.evaluation.sessions import read_sessions
from lit_qagent.evaluation.shard import MANIFEST_FILE, RESULTS_FOLDER
from lit_qagent.evaluation.specs import SCHEMA_VERSION
from lit_qagent.evaluation.statistics import (
    AgentSummary,
    compare,
    failures_as_zero,
    metric_names,
    summarize,
)
from lit_qagent.evaluation.versions import installed_versions

REPORT_FILES = ("report.md", "report.html", "report.json")
_ADAPTIVE = f"{AdaptiveQSelector.__module__}.{AdaptiveQSelector.__qualname__}"
_ORACLE = f"{OracleSelector.__module__}.{OracleSelector.__qualname__}"


def write_report(folder: Path) -> dict[str, Any]:
    """Write ``report.json``, ``report.md`` and ``report.html`` into a results folder.

    Returns:
        What ``report.json`` holds.

    Raises:
        StoreError: The folder has no manifest, no episodes, or is damaged.
    """
    settings = read_settings(folder)
    contents = read_episodes(folder)
    episodes = list(contents.episodes.values())
    if not episodes:
        raise StoreError(f"{RESULTS_FOLDER} {str(folder)!r} has no episodes; play some first")
    report = build_report(folder, settings, episodes, contents.usage)
    manifest.write_json(folder / "report.json", report)
    context = {
        "report": report,
        "settings": settings,
        "settings_text": _settings_text(settings),
        "actions_text": actions_text(settings),
        "policy_text": policy_text(settings["policy"]),
        "cost_note": cost_note(settings),
        "q_model_text": q_model_text(settings["q_model"]),
        "tables": tables,
        "reward_plot": reward_plot(report["agents"]),
        "difference_plot": difference_plot(report),
        "curve_plots": curve_plots(report["agents"], report["sampling"]),
        "examples": choose_examples(episodes),
    }
    templates = Templates(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("report.md", "report.html"):
        text = templates.get_template(f"{name}.j2").render(context)
        (folder / name).write_text(text, encoding="utf-8")
    return report


def build_report(
    folder: Path,
    settings: Mapping[str, Any],
    episodes: Sequence[PlayedEpisode],
    usage: Usage,
) -> dict[str, Any]:
    """Return the whole report as JSON values.

    Args:
        folder: The results folder.
        settings: Its manifest.
        episodes: One record of every episode.
        usage: What playing has cost, episodes that were played again included.
    """
    metrics = metric_names(episodes)
    by_agent = {name: [e for e in episodes if e.agent == name] for name in settings["agents"]}
    prices = settings.get("prices")
    agreement = read_agreement(folder, settings["q_model"]["lineage_hash"])
    failed = sum(episode.failure is not None for episode in episodes)
    planned = len(settings["agents"]) * len(settings["task_ids"]) * len(settings["tasks"]["seeds"])
    return {
        "tasks": len({e.task_id for e in episodes if e.failure is None}),
        "trained_tasks": settings["q_model"].get("trained_tasks"),
        "episodes": {
            "planned": planned,
            "finished": len(episodes) - failed,
            "failed": failed,
            "not_played": planned - len(episodes),
        },
        "metrics": metrics,
        "agents": {
            name: {
                **settings["agents"][name],
                **_sampled(settings["agents"][name], some),
                **_agent_row(summarize(some, metrics)),
                "cost": cost_per_episode(some, prices),
                "outcomes": count_outcomes(some),
                **(_with_failures(some, metrics) if failed else {}),
            }
            for name, some in by_agent.items()
        },
        **_differences(settings, by_agent, metrics),
        "by_depth": {name: decisions_by_depth(some) for name, some in by_agent.items()},
        **_regrets(settings, by_agent),
        "agreement_by_depth": agreement["by_depth"],
        "agreement_other_world": agreement.get("other_world", []),
        "agreement_too_long": agreement.get("too_long", 0),
        "split": settings["tasks"]["split"],
        "seeds": settings["tasks"]["seeds"],
        **{key: settings[key] for key in ("environment", "policy", "prompt", "sampling")},
        "q_model": settings["q_model"],
        **usage.to_dict(),
        **({"dollars": dollars(usage.to_dict(), prices)} if prices else {}),
        **read_sessions(folder)._asdict(),
        "versions": installed_versions(),
        "hashes": _hashes(folder, settings),
    }


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the manifest of a results folder.

    Raises:
        StoreError: It is missing, damaged or of another schema.
    """
    settings = manifest.read(folder / MANIFEST_FILE, RESULTS_FOLDER)
    if settings.get("schema_version") != SCHEMA_VERSION:
        raise StoreError(
            f"{RESULTS_FOLDER} {str(folder)!r} has schema {settings.get('schema_version')}, "
            f"this version reads {SCHEMA_VERSION}; play again into another folder"
        )
    return settings


def _settings_text(settings: Mapping[str, Any]) -> str:
    """Return the settings for readers; the list of tasks stays in the manifest."""
    shown = {key: value for key, value in settings.items() if key != "task_ids"}
    return json.dumps(shown, indent=2, ensure_ascii=False)


def _agent_row(summary: AgentSummary) -> dict[str, Any]:
    counts = {key: value for key, value in vars(summary).items() if key != "estimates"}
    if not summary.estimates:
        return counts
    means = {key: estimate.mean for key, estimate in summary.estimates.items()}
    intervals = {
        key: {"low": estimate.low, "high": estimate.high}
        for key, estimate in summary.estimates.items()
    }
    return {**means, **counts, "intervals": intervals}


def _sampled(agent: Mapping[str, Any], episodes: Sequence[PlayedEpisode]) -> dict[str, Any]:
    """Return what an adaptive agent sampled, None without a decision; of others nothing.

    Theirs is ``num_candidates`` itself, which of an adaptive agent is only the most. The decisions
    of a search before acting list distinct actions, whatever was sampled.
    """
    if agent["selector"] != _ADAPTIVE or "search" in agent.get("trials", {}):
        return {}
    return {"candidates_per_decision": candidates_per_decision(episodes)}


def _with_failures(
    episodes: Sequence[PlayedEpisode], metrics: Sequence[str]
) -> dict[str, dict[str, Any]]:
    found = failures_as_zero(episodes, metrics)
    return {"failures_as_zero": {key: asdict(estimate) for key, estimate in found.items()}}


def _differences(
    settings: Mapping[str, Any],
    by_agent: Mapping[str, Sequence[PlayedEpisode]],
    metrics: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """Return treatment minus each control, and minus the nearest in cost of controls' variants.

    All are one family of tests, so that a pair has one verdict wherever it is shown. ``variants``
    of a row at nearest cost are the agents that there were to choose from.
    """
    treatment, controls = settings["treatment"], settings["controls"]
    cost = {name: cost_per_episode(some, settings.get("prices")) for name, some in by_agent.items()}
    variants = nearest_in_cost(treatment, controls, settings["agents"], cost)
    others = list(dict.fromkeys([*controls, *variants]))
    found = {
        name: compare(by_agent[treatment], by_agent[name], metrics, num_tests=len(others))
        for name in others
    }
    ratios = {name: cost_ratio(cost[treatment], cost[name]) for name in found}
    rows = {
        name: {**row, "cost_ratio": ratios[name], "cost_matched": is_matched(ratios[name])}
        for name, row in difference_rows(found).items()
    }
    return {
        "differences": {f"{treatment} - {name}": rows[name] for name in controls},
        "differences_at_nearest_cost": {
            f"{treatment} - {name}": {**rows[name], "variants": some}
            for name, some in variants.items()
        },
    }


def _regrets(
    settings: Mapping[str, Any], by_agent: Mapping[str, Sequence[PlayedEpisode]]
) -> dict[str, Any]:
    """Return agent -> regret by depth, by the values of the first oracle, and how it is measured.

    Both are empty without an oracle. Other oracles are left out: on equal seeds they choose by the
    very rollouts that would measure them.
    """
    agents = settings["agents"]
    oracle = next((name for name, row in agents.items() if row["selector"] == _ORACLE), None)
    if oracle is None:
        return {"regret_by_depth": {}, "regret_measure": {}}
    theirs = by_agent[oracle]
    return {
        "regret_by_depth": {
            name: regret_by_depth(some, theirs)
            for name, some in by_agent.items()
            if agents[name]["selector"] != _ORACLE
        },
        "regret_measure": {
            "oracle": oracle,
            "rollouts": agents[oracle]["selector_options"]["rollouts"],
            "cross_fitted": is_cross_fitted(theirs),
        },
    }


def _hashes(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    files = [folder / MANIFEST_FILE, *sorted(folder.glob(TRAJECTORIES_GLOB))]
    return {
        "environment_data": settings["environment"]["data_hash"],
        **{f"Q-model {name}": value for name, value in hashes_of(settings["q_model"]).items()},
        **{path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
