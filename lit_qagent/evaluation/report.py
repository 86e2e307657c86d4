"""The report of an evaluation, made from its folder alone: JSON, Markdown and one HTML page."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment as Templates
from jinja2 import FileSystemLoader, StrictUndefined, select_autoescape

from lit_qagent.core import manifest
from lit_qagent.core.errors import StoreError
from lit_qagent.evaluation.episodes import TRAJECTORIES_GLOB, PlayedEpisode, read_episodes
from lit_qagent.evaluation.plots import difference_plot, reward_plot
from lit_qagent.evaluation.shard import MANIFEST_FILE, RESULTS_FOLDER, SESSIONS_GLOB
from lit_qagent.evaluation.specs import SCHEMA_VERSION
from lit_qagent.evaluation.statistics import (
    AgentSummary,
    Difference,
    Estimate,
    compare,
    metric_names,
    summarize,
    verdict,
)
from lit_qagent.evaluation.versions import installed_versions

REPORT_FILES = ("report.md", "report.html", "report.json")
_MAIN = "reward"


def write_report(folder: Path) -> dict[str, Any]:
    """Write ``report.json``, ``report.md`` and ``report.html`` into a results folder.

    Returns:
        What ``report.json`` holds.

    Raises:
        StoreError: The folder has no manifest, no episodes, or is damaged.
    """
    settings = _read_settings(folder)
    episodes = list(read_episodes(folder).episodes.values())
    if not episodes:
        raise StoreError(f"{RESULTS_FOLDER} {str(folder)!r} has no episodes; play some first")
    report = build_report(folder, settings, episodes)
    manifest.write_json(folder / "report.json", report)
    context = {
        "report": report,
        "settings": settings,
        "settings_text": _settings_text(settings),
        "policy_text": _in_one_line(settings["policy"]),
        "q_model_text": _in_one_line(settings["q_model"]),
        "agent_table": agent_table(report),
        "difference_table": difference_table(report),
        "shortened_table": shortened_table(report),
        "reward_plot": reward_plot(report["agents"]),
        "difference_plot": difference_plot(report["differences"]),
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
    folder: Path, settings: Mapping[str, Any], episodes: Sequence[PlayedEpisode]
) -> dict[str, Any]:
    """Return the whole report as JSON values."""
    metrics = metric_names(episodes)
    by_agent = {name: [e for e in episodes if e.agent == name] for name in settings["agents"]}
    treatment = settings["treatment"]
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
            name: {**settings["agents"][name], **_agent_row(summarize(some, metrics))}
            for name, some in by_agent.items()
        },
        "differences": {
            f"{treatment} - {control}": _difference_row(
                compare(by_agent[treatment], by_agent[control], metrics)
            )
            for control in settings["controls"]
        },
        "split": settings["tasks"]["split"],
        "seeds": settings["tasks"]["seeds"],
        **{key: settings[key] for key in ("environment", "policy", "prompt", "sampling")},
        "q_model": settings["q_model"],
        "requests": sum(e.requests for e in episodes),
        "prompt_tokens": sum(e.prompt_tokens for e in episodes),
        "generated_tokens": sum(e.generated_tokens for e in episodes),
        **_cost(folder),
        "versions": installed_versions(),
        "hashes": _hashes(folder, settings),
    }


def agent_table(report: Mapping[str, Any], *, intervals: bool = True) -> list[list[str]]:
    """Return the table of agents, its heading first, as texts; with intervals it is wide."""
    scores = [_MAIN, "success", *report["metrics"]]
    rows = [["agent", "n", *scores, "steps", "invalid", "tokens", "episodes", "failed"]]
    for name, row in report["agents"].items():
        if "intervals" in row:
            shown = [_with_interval(row[key], row["intervals"][key]) for key in scores]
            cells = shown if intervals else [f"{row[key]:.3f}" for key in scores]
            cells += [f"{row['steps']:.1f}", f"{row['invalid_rate']:.1%}", f"{row['tokens']:.0f}"]
        else:
            cells = ["-"] * (len(scores) + 3)
        counts = [str(row["episodes"]), str(row["failures"])]
        rows.append([name, str(row["num_candidates"]), *cells, *counts])
    return rows


def difference_table(report: Mapping[str, Any]) -> list[list[str]]:
    """Return the table of differences in reward, its heading first, as texts."""
    rows = [["treatment - control", "reward", "verdict", "tasks", "left out"]]
    for name, row in report["differences"].items():
        shown = _with_interval(row["mean"], row, signed=True) if row["tasks"] else "-"
        rows.append([name, shown, row["verdict"], str(row["tasks"]), str(row["excluded_episodes"])])
    return rows


def shortened_table(report: Mapping[str, Any]) -> list[list[str]]:
    """Return what was left out or cut, by agent, its heading first, as texts."""
    head = ["agent", "failed episodes", "steps dropped from prompts"]
    rows = [[*head, "candidates cut by the token limit"]]
    for name, row in report["agents"].items():
        counts = (row["failures"], row["dropped_steps"], row["cut_candidates"])
        rows.append([name, *map(str, counts)])
    return rows


def choose_examples(episodes: Iterable[PlayedEpisode]) -> dict[str, PlayedEpisode]:
    """Return the first success and the first failure of each agent, by a title."""
    chosen: dict[str, PlayedEpisode] = {}
    for episode in episodes:
        if episode.failure is None:
            outcome = "success" if episode.success else "no success"
            chosen.setdefault(f"{episode.agent}: {outcome}", episode)
    return dict(sorted(chosen.items()))


def _read_settings(folder: Path) -> dict[str, Any]:
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


def _in_one_line(settings: Mapping[str, Any]) -> str:
    """Return the plain values of some settings; nested ones are among all settings."""
    nested = (dict, list, tuple)
    shown = [f"{key} {value}" for key, value in settings.items() if not isinstance(value, nested)]
    return ", ".join(shown)


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


def _difference_row(difference: Difference) -> dict[str, Any]:
    counts = {
        "tasks": difference.tasks,
        "excluded_episodes": difference.excluded_episodes,
    }
    if not difference.estimates:
        nothing = {"mean": None, "low": None, "high": None}
        return {**nothing, **counts, "verdict": "nothing to compare", "others": {}}
    others = {key: _difference(one) for key, one in difference.estimates.items() if key != _MAIN}
    return {**_difference(difference.estimates[_MAIN]), **counts, "others": others}


def _difference(estimate: Estimate) -> dict[str, Any]:
    return {**asdict(estimate), "verdict": verdict(estimate)}


def _with_interval(
    mean: float, interval: Mapping[str, float | None], *, signed: bool = False
) -> str:
    form = "+.3f" if signed else ".3f"
    if interval["low"] is None:
        return f"{mean:{form}} (no interval)"
    return f"{mean:{form}} [{interval['low']:{form}}, {interval['high']:{form}}]"


def _cost(folder: Path) -> dict[str, float]:
    """Return what all sessions took; processes beside each other count once in wall time."""
    seconds, peak = [], [0.0]
    for path in sorted(folder.glob(SESSIONS_GLOB)):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        seconds.append(sum(row["seconds"] for row in rows))
        peak += [row["peak_rss_gb"] for row in rows]
    return {"seconds": max(seconds, default=0.0), "peak_rss_gb": max(peak)}


def _hashes(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    files = [folder / MANIFEST_FILE, *sorted(folder.glob(TRAJECTORIES_GLOB))]
    return {
        "environment_data": settings["environment"]["data_hash"],
        "lineage": settings["q_model"]["lineage_hash"],
        **{path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    }
