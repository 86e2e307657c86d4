"""Agreement of a scorer with the values of a search, from trees to the report."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml

from data_collection.cli import make_parser
from data_collection.collect import collect
from data_collection.filters import PairFilter
from data_collection.pairs import build_pairs, write_pairs
from data_collection.setup import SearchSetup
from data_collection.spec import SearchSpec
from data_collection.store import TreeStore
from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.agents.selection import Scorer
from lit_qagent.core.errors import ConfigError, ContextOverflow, ModelError, OverlapError
from lit_qagent.core.pairs import PreferencePair
from lit_qagent.core.records import History, Sampling
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.evaluation.agreement import (
    AGREEMENT_FILE,
    Agreement,
    Siblings,
    SiblingSet,
    measure_agreement,
    read_siblings,
    write_agreement,
)
from lit_qagent.evaluation.callbacks import report_metrics
from lit_qagent.evaluation.lineage import describe_lineage
from lit_qagent.evaluation.report import write_report
from lit_qagent.evaluation.shard import EpisodeShard
from tests.pair_folder import make_pair, write_card
from tests.pair_folder import write_pairs as write_pair_folder
from tests.toy_players import WordPolicy, WordScorer, make_evaluation

SIBLINGS = {"name": "all_siblings"}


class Listed:
    """Scores by a list of actions, the best one last."""

    def __init__(self, *actions: str) -> None:
        self.actions = actions

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        return [float(self.actions.index(text)) for text in candidates]


def three_siblings(folder: Path) -> Path:
    """Three actions at depth 0 worth 0, 0.5 and 1, and two at depth 1."""
    values = {"open[a]": 0.0, "open[b]": 0.5, "open[c]": 1.0}

    def pair(depth: int, better: str, worse: str) -> PreferencePair:
        return make_pair(
            0,
            depth,
            chosen=[{"role": "assistant", "content": better}],
            rejected=[{"role": "assistant", "content": worse}],
            q_chosen=values[better],
            q_rejected=values[worse],
        )

    pairs = [pair(0, "open[c]", "open[b]"), pair(0, "open[c]", "open[a]")]
    pairs += [pair(0, "open[b]", "open[a]"), pair(1, "open[c]", "open[a]")]
    return write_pair_folder(folder, pairs, rule=SIBLINGS, task_ids=["task-0"])


PROMPT = PromptSpec(think=False, num_examples=0)
EMPTY: Mapping[str, Any] = MappingProxyType({})
BOXES = {"name": "boxes", "max_steps": 5, "data_hash": "0"}


def read(folder: Path, lineage: Mapping[str, Any] = EMPTY, **changes: Any) -> Siblings:  # noqa: ANN401
    given: dict[str, Any] = {"environment": BOXES, "prompt": PROMPT, **changes}
    return read_siblings(folder, lineage, **given)


def test_tau_and_the_best_action_by_depth(tmp_path: Path) -> None:
    sets = read(three_siblings(tmp_path)).sets
    assert [(one.history.num_steps, len(one.values)) for one in sets] == [(0, 3), (1, 2)]

    scorer = Listed("open[a]", "open[c]", "open[b]")
    rows, too_long = asyncio.run(measure_agreement(sets, scorer))

    # At depth 0 one couple of three is the wrong way round, and the best action is second.
    assert rows[0] == {
        "depth": 0,
        "sets": 1,
        "actions": 3,
        "tau": pytest.approx(1 / 3),
        "best_picked": 0.0,
    }
    assert (rows[1]["tau"], rows[1]["best_picked"]) == (1.0, 1.0)
    assert too_long == 0


class Constant:
    """Scores every action alike, except those that it names."""

    def __init__(self, **values: float) -> None:
        self.values = values

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        return [self.values.get(text, 0.0) for text in candidates]


def test_actions_of_equal_q_count_by_the_share_of_them_that_are_best() -> None:
    values = {"a": 1.0, "b": 0.0, "c": 0.5, "d": 1.0}
    sets = [SiblingSet(history=History(head=()), values=values)]

    def best_picked(scorer: Scorer) -> float:
        [row] = asyncio.run(measure_agreement(sets, scorer)).by_depth
        return float(row["best_picked"])

    # Knowing nothing picks one of four, two of which are best.
    assert best_picked(Constant()) == 0.5
    assert best_picked(Constant(b=1.0, c=1.0, d=1.0)) == pytest.approx(1 / 3)
    assert best_picked(Constant(a=1.0)) == 1.0
    assert best_picked(Constant(b=1.0, c=1.0)) == 0.0


def test_a_q_that_is_no_number_is_refused_with_its_action() -> None:
    sets = [SiblingSet(history=History(head=()), values={"a": 1.0, "b": 0.0})]

    with pytest.raises(ModelError, match=r"value of nan to candidate 'b'"):
        asyncio.run(measure_agreement(sets, Constant(b=math.nan)))


def test_other_rules_and_trained_tasks_are_refused(tmp_path: Path) -> None:
    other = write_pair_folder(tmp_path / "other", [make_pair(0, 0)])
    with pytest.raises(ConfigError, match=r"holds pairs of rule .*--rule all_siblings"):
        read(other)
    with pytest.raises(OverlapError, match=r"1 tasks of play.siblings .* \(task-0\)"):
        read(three_siblings(tmp_path / "siblings"), lineage={"task_ids": ["task-0"]})


@pytest.mark.parametrize(
    ("filters", "given", "off"),
    [
        ({"min_margin": 0.1}, "min_margin 0.1", "--min_margin 0"),
        (
            {"min_margin": None, "min_visits": 2, "valid_chosen": True},
            "min_visits 2, valid_chosen True",
            "--min_visits null --valid_chosen false",
        ),
        ({"min_margin": 0.0, "max_characters": 90}, "max_characters 90", "--max_characters null"),
        # One that is not known here may leave out anything.
        ({"only_odd": 3}, "only_odd 3", "--only_odd null"),
    ],
)
def test_pairs_that_a_filter_selected_are_refused(
    tmp_path: Path, filters: dict[str, Any], given: str, off: str
) -> None:
    write_card(three_siblings(tmp_path), rule={**SIBLINGS, **filters}, task_ids=["task-0"])

    with pytest.raises(ConfigError) as caught:
        read(tmp_path)

    assert f"was filtered ({given}): without the pairs left out" in str(caught.value)
    assert str(caught.value).endswith(f"pairs --rule all_siblings {off}`")


@pytest.mark.parametrize(
    "filters",
    [{"min_margin": None}, {"min_margin": 0}, {"min_margin": None, "distinct_commands": True}],
)
def test_filters_that_leave_out_nothing_of_worth_pass(
    tmp_path: Path, filters: dict[str, Any]
) -> None:
    write_card(three_siblings(tmp_path), rule={**SIBLINGS, **filters}, task_ids=["task-0"])

    assert len(read(tmp_path).sets) == 2


def test_the_command_of_the_message_switches_off_every_filter_of_a_config(tmp_path: Path) -> None:
    filters = {"min_margin": 0.1, "min_visits": 1, "max_characters": 9, "valid_chosen": True}
    config = tmp_path / "pairs.yaml"
    config.write_text(yaml.safe_dump({"store": "trees", "output": "pairs", **filters}))
    rule = {**SIBLINGS, **PairFilter(**filters).settings()}  # type: ignore[arg-type]
    write_card(three_siblings(tmp_path / "siblings"), rule=rule, task_ids=["task-0"])

    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "siblings")

    command, *options = str(caught.value).rpartition("data_collection ")[2].rstrip("`").split()
    parsed = make_parser().parse_args([command, "--config", str(config), *options])[command]
    off = PairFilter(**{name: parsed[name] for name in filters})
    assert off == PairFilter(min_margin=0.0)


def test_siblings_of_other_prompts_are_refused(tmp_path: Path) -> None:
    folder = three_siblings(tmp_path)

    message = (
        r"other prompts than are played: prompt.think False in the search, True now; "
        r"prompt.num_examples 0 in the search, 2 now; search its tasks with"
    )
    with pytest.raises(ConfigError, match=message):
        read(folder, prompt=PromptSpec(think=True, num_examples=2))
    # Whether actions are constrained changes no prompt.
    assert read(folder, prompt=replace(PROMPT, constrain=True)).sets


def test_siblings_of_another_world_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = three_siblings(tmp_path / "siblings")
    assert read(folder).other_world == []
    assert "another world" not in caplog.text

    found = read(folder, environment={**BOXES, "max_steps": 7})

    assert found.other_world == ["max_steps is 7, in the search it was 5"]
    assert "play.siblings was in another world than is played: max_steps is 7" in caplog.text
    evaluation = make_evaluation(tmp_path / "out", play={"siblings": folder})
    EpisodeShard(evaluation).play(WordScorer(), {})
    report = write_report(tmp_path / "out")
    assert 'name is "toy", in the search it was "boxes"' in report["agreement_other_world"]
    for name in ("report.md", "report.html"):
        assert "The search was in another world than is played" in (
            (tmp_path / "out" / name).read_text()
        )


def search_valid_tasks(folder: Path) -> Path:
    """Search the validation tasks of the toy world and write all siblings."""
    world = ToyWorld()
    setup = SearchSetup(
        environment=world,
        policy=WordPolicy(),
        search=SearchSpec(num_iterations=60, num_candidates=8, stop_at_success=False),
        prompt=PromptSpec(think=False, num_examples=0),
        sampling=Sampling(),
        seed=0,
    )
    store = TreeStore(folder / "trees")
    collect(setup, list(world.tasks("valid"))[:3], store, concurrency=2)
    write_pairs(build_pairs(store, rule="all_siblings"), folder / "siblings")
    return folder / "siblings"


def test_a_report_says_how_far_the_scorer_agrees_with_a_search(tmp_path: Path) -> None:
    siblings = search_valid_tasks(tmp_path)
    evaluation = make_evaluation(tmp_path / "out", play={"siblings": siblings})
    EpisodeShard(evaluation).play(WordScorer(), {})

    report = write_report(tmp_path / "out")

    rows = report["agreement_by_depth"]
    assert [row["depth"] for row in rows] == [0, 1, 2]
    # The last word's value is known exactly; earlier ones are means over what was searched.
    assert rows[2]["tau"] == 1.0
    assert all(row["tau"] > 0 for row in rows)
    assert all(row["sets"] > 0 and row["actions"] > row["sets"] for row in rows)
    for name in ("report.md", "report.html"):
        assert "Kendall" in (tmp_path / "out" / name).read_text()
        assert "The search was in another world" not in (tmp_path / "out" / name).read_text()
    assert report_metrics(report)["agreement/tau_depth_02"] == 1.0


def test_it_is_measured_once_for_one_model_and_one_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    siblings = three_siblings(tmp_path / "siblings")
    scorer = WordScorer()
    calls: list[int] = []
    score = scorer.score

    async def counted(history: History, candidates: Sequence[str]) -> list[float]:
        calls.append(len(candidates))
        return await score(history, candidates)

    monkeypatch.setattr(scorer, "score", counted)
    evaluation = make_evaluation(tmp_path / "out", play={"siblings": siblings})
    EpisodeShard(evaluation).play(scorer, {})
    first = len(calls)
    EpisodeShard(evaluation).play(scorer, {})
    assert len(calls) == first
    assert calls.count(3) >= 1


class Short(WordScorer):
    """Has no room for anything after the first step."""

    async def score(self, history: History, candidates: Sequence[str]) -> list[float]:
        if history.num_steps:
            raise ContextOverflow("too long")
        return await super().score(history, candidates)


def test_sets_that_the_q_model_cannot_read_are_left_out_and_counted(tmp_path: Path) -> None:
    siblings = three_siblings(tmp_path / "siblings")
    sets = read(siblings).sets
    found = asyncio.run(measure_agreement(sets, Short()))
    assert ([row["depth"] for row in found.by_depth], found.too_long) == ([0], 1)

    EpisodeShard(make_evaluation(tmp_path / "out")).play(WordScorer(), {})
    lineage_hash = describe_lineage({})["lineage_hash"]
    write_agreement(tmp_path / "out", found, {"lineage_hash": lineage_hash})
    assert write_report(tmp_path / "out")["agreement_too_long"] == 1
    assert "1 sets of siblings are longer" in (tmp_path / "out" / "report.md").read_text()


def test_without_siblings_the_report_is_silent(tmp_path: Path) -> None:
    EpisodeShard(make_evaluation(tmp_path / "out")).play(WordScorer(), {})
    report = write_report(tmp_path / "out")
    assert report["agreement_by_depth"] == []
    assert "Kendall" not in (tmp_path / "out" / "report.md").read_text()


ROW = {"depth": 0, "sets": 1, "actions": 2, "tau": 1.0, "best_picked": 1.0}


def test_the_agreement_of_another_q_model_is_not_reported(tmp_path: Path) -> None:
    EpisodeShard(make_evaluation(tmp_path)).play(WordScorer(), {"base_model": "new"})

    write_agreement(tmp_path, Agreement([ROW]), {"lineage_hash": "old", "pairs_hash": "x"})

    assert write_report(tmp_path)["agreement_by_depth"] == []


def test_a_folder_that_is_taken_over_loses_what_was_measured_in_it(tmp_path: Path) -> None:
    unplayable = make_evaluation(tmp_path, prompt=PromptSpec(num_examples=9))
    with pytest.raises(ConfigError, match="num_examples is 9"):
        EpisodeShard(unplayable).play(WordScorer(), {})
    write_agreement(tmp_path, Agreement([ROW]), {"lineage_hash": "old", "pairs_hash": "x"})

    EpisodeShard(make_evaluation(tmp_path)).play(WordScorer(), {})

    assert not (tmp_path / AGREEMENT_FILE).exists()
