"""Compares two finished evaluations: the same tasks and seeds, run B minus run A."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lit_qagent.core.errors import ConfigError, StoreError
from lit_qagent.core.manifest import differences
from lit_qagent.evaluation.differences import difference_rows
from lit_qagent.evaluation.episodes import PlayedEpisode, read_episodes
from lit_qagent.evaluation.report import read_settings
from lit_qagent.evaluation.shard import RESULTS_FOLDER
from lit_qagent.evaluation.statistics import compare, metric_names, summarize
from lit_qagent.evaluation.tables import MAIN, Rows, or_dash, p_text, with_interval

_SAME = ("environment", "task_ids")
_NAMED_TASKS = 3


class Run(NamedTuple):
    """A results folder: its manifest and its episodes."""

    folder: Path
    settings: dict[str, Any]
    episodes: list[PlayedEpisode]

    def of(self, agent: str) -> list[PlayedEpisode]:
        """Return the episodes of one agent."""
        return [episode for episode in self.episodes if episode.agent == agent]


def read_run(folder: Path) -> Run:
    """Read a results folder.

    Raises:
        StoreError: It has no manifest, no episodes, is damaged, or of another schema.
    """
    settings = read_settings(folder)
    episodes = list(read_episodes(folder).episodes.values())
    if not episodes:
        raise StoreError(f"{RESULTS_FOLDER} {str(folder)!r} has no episodes; play some first")
    return Run(folder, settings, episodes)


def pair_agents(
    a: Run, b: Run, agent_a: str | None = None, agent_b: str | None = None
) -> list[tuple[str, str]]:
    """Return which agent of A is compared with which of B: all of equal name, unless named.

    Args:
        a: One run.
        b: The other.
        agent_a: The agent of A; that of B if only that is given.
        agent_b: The agent of B; that of A if only that is given.

    Raises:
        ConfigError: A run has no agent of that name, or the two share none.
    """
    if agent_a or agent_b:
        pair = (agent_a or agent_b or "", agent_b or agent_a or "")
        for run, name in zip((a, b), pair, strict=True):
            if name not in run.settings["agents"]:
                raise ConfigError(
                    f"run {str(run.folder)!r} has no agent {name!r}; "
                    f"there are {sorted(run.settings['agents'])}"
                )
        return [pair]
    shared = [name for name in a.settings["agents"] if name in b.settings["agents"]]
    if not shared:
        raise ConfigError(
            f"the runs share no agent: {sorted(a.settings['agents'])} and "
            f"{sorted(b.settings['agents'])}; name one of each with --agent_a and --agent_b"
        )
    return [(name, name) for name in shared]


def compare_runs(a: Run, b: Run, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Return run B minus run A for each pair of agents, as JSON values.

    Only episodes of the same task and seed that both have finished are compared; the p-values are
    corrected for the number of pairs.

    Raises:
        StoreError: The runs played in different worlds, other tasks, or no common seed.
    """
    _check_comparable(a, b)
    metrics = metric_names([*a.episodes, *b.episodes])
    names = {f"{second} - {first}": (first, second) for first, second in pairs}
    found = {
        name: compare(b.of(second), a.of(first), metrics, num_tests=len(names))
        for name, (first, second) in names.items()
    }
    rows = difference_rows(found)
    seeds = [run.settings["tasks"]["seeds"] for run in (a, b)]
    return {
        "run_a": str(a.folder),
        "run_b": str(b.folder),
        "tasks": len(a.settings["task_ids"]),
        "seeds": sorted(set(seeds[0]) & set(seeds[1])),
        "settings_that_differ": _other_settings(a.settings, b.settings),
        "metrics": metrics,
        "agents": {
            name: {
                "agent_a": first,
                "agent_b": second,
                "a": _means(a.of(first), metrics),
                "b": _means(b.of(second), metrics),
                "uses_a": a.settings["agents"][first].get("uses"),
                "uses_b": b.settings["agents"][second].get("uses"),
                **rows[name],
            }
            for name, (first, second) in names.items()
        },
    }


def comparison_table(result: Mapping[str, Any]) -> Rows:
    """Return the table of a comparison, its heading first, as texts."""
    rows = [["B - A", "score", "A", "B", "difference", "verdict", "p (Holm)", "detectable"]]
    rows[0] += ["tasks", "left out"]
    for name, row in result["agents"].items():
        title = f"{name} †" if row["uses_a"] or row["uses_b"] else name
        counts = [str(row["tasks"]), str(row["excluded_episodes"])]
        if not row["tasks"]:
            rows.append([title, MAIN, *["-"] * 3, row["verdict"], "-", "-", *counts])
            continue
        for key in (MAIN, "success", *result["metrics"]):
            one = row if key == MAIN else row["others"][key]
            test = row["tests"][key]
            cells = [f"{row['a'][key]:.3f}", f"{row['b'][key]:.3f}"]
            cells += [with_interval(one["mean"], one, signed=True), one["verdict"]]
            cells += [p_text(test["p_holm"]), or_dash(test["detectable"], ".3f")]
            rows.append([title, key, *cells, *counts])
    return rows


def comparison_text(result: Mapping[str, Any]) -> str:
    """Return the comparison as Markdown."""
    head, *body = comparison_table(result)
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]
    differing = [f"- {line}" for line in result["settings_that_differ"]] or ["- none"]
    flags = [
        f"† {row[f'agent_{run}']} of run {run.upper()} uses {row[f'uses_{run}']}."
        for row in result["agents"].values()
        for run in ("a", "b")
        if row[f"uses_{run}"]
    ]
    return "\n".join(
        [
            f"# B `{result['run_b']}` minus A `{result['run_a']}`",
            "",
            f"{result['tasks']} tasks, seeds {', '.join(map(str, result['seeds']))}; paired on "
            "episodes that both have finished. 95 % bootstrap intervals over tasks; permutation "
            'p-values corrected for the number of pairs by Holm\'s method. "better" and '
            '"worse" mean that the interval leaves out zero and that the corrected p-value '
            "is at most 0.05. A and B: means over all finished episodes of the run.",
            "",
            *lines,
            "",
            *(line for flag in flags for line in (flag, "")),
            "Settings that differ (there is A, now is B):",
            "",
            *differing,
            "",
        ]
    )


def _check_comparable(a: Run, b: Run) -> None:
    world = differences(a.settings["environment"], b.settings["environment"])
    if world:
        raise StoreError(
            f"the runs {str(a.folder)!r} (there) and {str(b.folder)!r} (now) played in different "
            f"worlds: {'; '.join(world)}; compare runs of one world"
        )
    mine, other = a.settings["task_ids"], b.settings["task_ids"]
    if set(mine) != set(other):
        raise StoreError(
            f"the runs played other tasks: {_only(mine, other, a)}; {_only(other, mine, b)}; "
            "compare runs of the same tasks"
        )
    seeds = [run.settings["tasks"]["seeds"] for run in (a, b)]
    if not set(seeds[0]) & set(seeds[1]):
        raise StoreError(
            f"the runs share no seed: {seeds[0]} and {seeds[1]}; play one of them with the other's"
        )


def _only(some: Sequence[str], others: Sequence[str], run: Run) -> str:
    extra = sorted(set(some) - set(others))
    named = ", ".join(extra[:_NAMED_TASKS]) + (", ..." if extra[_NAMED_TASKS:] else "")
    return f"{len(extra)} only in {str(run.folder)!r}" + (f" ({named})" if extra else "")


def _other_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    left_out = (*_SAME, "schema_version")
    kept = [{key: one[key] for key in one if key not in left_out} for one in (a, b)]
    return differences(*kept)


def _means(episodes: Sequence[PlayedEpisode], metrics: Sequence[str]) -> dict[str, float]:
    summary = summarize(episodes, metrics)
    return {key: estimate.mean for key, estimate in summary.estimates.items()}
