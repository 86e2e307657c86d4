"""What report.json holds, and the page and the text that show it."""

import json
import re
from pathlib import Path

import pytest

from lit_qagent.core import manifest
from lit_qagent.core.errors import StoreError
from lit_qagent.evaluation.report import write_report
from lit_qagent.evaluation.shard import EpisodeShard
from tests.lit_qagent.evaluation.results import hand_made, make_folder
from tests.toy_players import WordScorer, make_evaluation


def test_report_json_holds_the_numbers_derived_by_hand(tmp_path: Path) -> None:
    report = write_report(make_folder(tmp_path, hand_made()))

    assert report == json.loads((tmp_path / "report.json").read_text())
    assert (report["tasks"], report["trained_tasks"], report["seeds"]) == (2, 3, [0, 1])
    assert report["episodes"] == {"planned": 12, "finished": 11, "failed": 1, "not_played": 0}
    # plain: task a mean(0, .5) = .25, task b 0; q_guided: task a 1, task b mean(.5, 1) = .75.
    plain, guided = report["agents"]["plain"], report["agents"]["q_guided"]
    assert (plain["reward"], plain["episodes"], plain["failures"]) == (0.125, 3, 1)
    assert plain["intervals"]["reward"] == {"low": 0.0, "high": 0.25}
    assert plain["tokens"] == 40
    # Task a 2 steps, task b mean(2, 1); invalid: task a 1/2, task b mean(1/2, 0).
    assert (guided["reward"], guided["steps"], guided["invalid_rate"]) == (0.875, 1.75, 0.375)
    # Both finished a/0, a/1 and b/0: task a mean(1, .5) = .75, task b .5.
    difference = report["differences"]["q_guided - plain"]
    assert (difference["mean"], difference["low"], difference["high"]) == (0.625, 0.5, 0.75)
    assert (difference["tasks"], difference["excluded_episodes"]) == (2, 1)
    # Two tasks show nothing, whatever their interval.
    assert difference["verdict"] == "no difference shown"
    other = report["differences"]["q_guided - random_of_n"]
    assert (other["mean"], other["verdict"]) == (-0.125, "no difference shown")
    em = {"mean": -1.0, "low": -1.0, "high": -1.0, "verdict": "no difference shown"}
    assert other["others"]["em"] == em


def test_report_json_holds_tests_costs_and_ends(tmp_path: Path) -> None:
    report = write_report(make_folder(tmp_path, hand_made()))

    # Per task .75 and .5: of the four ways to sign them two are as far from zero.
    difference = report["differences"]["q_guided - plain"]
    assert (difference["p_value"], difference["p_holm"]) == (0.5, 1.0)
    assert difference["tests"]["reward"]["p_value"] == 0.5
    # z(1 - .05 / 2 / 2) + z(.8) standard errors, of two tests; those are .25 / sqrt(2) / sqrt(2).
    assert difference["detectable"] == pytest.approx(3.0830 * 0.125, abs=1e-4)
    assert (difference["cost_ratio"], difference["cost_matched"]) == (0.0, False)
    plain = report["agents"]["plain"]
    assert (plain["cost"]["requests"], plain["cost"]["prompt_tokens"]) == (1.0, 40.0)
    assert "dollars" not in plain["cost"]
    assert sum(plain["outcomes"].values()) == 4
    assert plain["outcomes"]["policy failure"] == 1
    assert [row["decisions"] for row in report["by_depth"]["q_guided"]] == [4, 3]
    assert report["regret_by_depth"] == {}


def test_report_json_says_what_made_the_numbers(tmp_path: Path) -> None:
    EpisodeShard(make_evaluation(tmp_path)).play(WordScorer(), {"task_ids": []})

    report = write_report(tmp_path)

    assert report["environment"]["name"] == "toy"
    assert report["policy"] == {"name": "words", "temperament": "calm"}
    assert report["prompt"]["constrain"] is False
    assert set(report["agents"]) == {"plain", "random_of_n", "q_guided"}
    assert {"python", "torch", "lightning", "transformers"} <= set(report["versions"])
    assert report["hashes"]["environment_data"] == report["environment"]["data_hash"]
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in report["hashes"].values())
    assert report["seconds"] > 0
    assert report["peak_rss_gb"] > 0
    assert report["generated_tokens"] == 3 * 3 * (1 + 4 + 4) * 8


def test_the_same_folder_gives_the_same_report(tmp_path: Path) -> None:
    make_folder(tmp_path, hand_made())
    write_report(tmp_path)
    first = (tmp_path / "report.json").read_bytes(), (tmp_path / "report.html").read_bytes()

    write_report(tmp_path)

    assert first == (
        (tmp_path / "report.json").read_bytes(), (tmp_path / "report.html").read_bytes()
    )  # fmt: skip


def test_every_link_of_the_page_leads_to_an_example(tmp_path: Path) -> None:
    write_report(make_folder(tmp_path, hand_made()))

    page = (tmp_path / "report.html").read_text()
    targets = re.findall(r'href="#([^"]+)"', page)
    assert "example-plain-policy-failure" in targets
    assert set(targets) <= set(re.findall(r'id="([^"]+)"', page))


def test_html_is_one_file_with_every_text_escaped(tmp_path: Path) -> None:
    write_report(make_folder(tmp_path, hand_made()))

    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert page.count("<svg") == 3
    assert "<h2>Reward against tokens</h2>" in page
    assert "Q = 0.5000" in page
    assert "q_guided - plain: no difference shown" in page
    assert "Not complete:" in page


def test_markdown_has_the_tables_and_the_honest_header(tmp_path: Path) -> None:
    write_report(make_folder(tmp_path, hand_made()))

    text = (tmp_path / "report.md").read_text()
    assert "| plain | 1 | 0.125 [0.000, 0.250] |" in text
    row = "+0.625 [+0.500, +0.750] | no difference shown | 1.000 | 0.500 | 0.385"
    assert f"| q_guided - plain | {row} |" in text
    assert "leaves out zero and that the corrected p is at most 0.05" in text
    assert "free text, without thoughts" in text
    assert "trained on 3 tasks, none of them among these" in text
    assert "11 of 12 episodes finished, 1 failed, 0 not played" in text


def test_unknown_training_tasks_are_said(tmp_path: Path) -> None:
    EpisodeShard(make_evaluation(tmp_path)).play(WordScorer(), {})

    assert write_report(tmp_path)["trained_tasks"] is None
    assert "no overlap check was possible" in (tmp_path / "report.html").read_text()


def test_a_folder_without_episodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no episodes; play some first"):
        write_report(make_folder(tmp_path, []))


def test_a_folder_of_another_schema_is_refused(tmp_path: Path) -> None:
    manifest.write_json(tmp_path / "manifest.json", {"schema_version": 0})

    with pytest.raises(StoreError, match="has schema 0, this version reads 1; play again"):
        write_report(tmp_path)
