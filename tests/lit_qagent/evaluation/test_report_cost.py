"""What a report says was spent: all tries, in tokens, dollars and time."""

from pathlib import Path

import pytest

from lit_qagent.evaluation.cost import Prices
from lit_qagent.evaluation.report import write_report
from lit_qagent.evaluation.sessions import Session
from tests.lit_qagent.evaluation.results import hand_made, make_folder
from tests.toy_players import make_episode


def test_a_try_that_failed_is_paid_for_though_a_later_one_stands_for_it(tmp_path: Path) -> None:
    spent = {"requests": 3, "prompt_tokens": 60, "generated_tokens": 9}
    failed = make_episode("plain", "a", steps=[], failure="PolicyFailure: no answer", **spent)
    again = make_episode("plain", "a", requests=4, prompt_tokens=80, generated_tokens=12)

    report = write_report(make_folder(tmp_path, [failed, again]))

    assert report["episodes"]["failed"] == 0
    assert (report["requests"], report["prompt_tokens"], report["generated_tokens"]) == (7, 140, 21)
    # What an episode costs is that of one that was played to its end.
    assert report["agents"]["plain"]["cost"]["requests"] == 4


def test_the_head_says_the_dollars_of_all_tries(tmp_path: Path) -> None:
    spent = {"requests": 3, "prompt_tokens": 600_000, "generated_tokens": 90_000}
    failed = make_episode("plain", "a", steps=[], failure="PolicyFailure: no answer", **spent)
    again = make_episode("plain", "a", requests=4, prompt_tokens=800_000, generated_tokens=110_000)
    lost = make_episode("q_guided", "b", steps=[], failure="PolicyFailure: x", prompt_tokens=50_000)
    play = {"prices": Prices(prompt=2.0, generated=10.0)}

    report = write_report(make_folder(tmp_path, [failed, again, lost], play))

    # 1.45 million prompt tokens at 2 and 0.2 million generated ones at 10 dollars per million.
    assert report["dollars"] == pytest.approx(2.90 + 2.00)
    # A finished episode costs 0.8 million at 2 and 0.11 million at 10.
    assert report["agents"]["plain"]["cost"]["dollars"] == pytest.approx(1.60 + 1.10)
    shown = (
        "0 s, 7 requests, 1450000 prompt and 200000 generated tokens, 4.90 dollars, "
        "peak resident memory 0.0 GB."
    )
    assert f"- **Cost**: {shown}" in (tmp_path / "report.md").read_text()
    assert f"<strong>Cost:</strong> {shown}" in (tmp_path / "report.html").read_text()


def test_few_dollars_are_not_rounded_to_none(tmp_path: Path) -> None:
    play = {"prices": Prices(prompt=1.0, generated=2.0)}
    episode = make_episode("plain", "a", prompt_tokens=40, generated_tokens=46)

    write_report(make_folder(tmp_path, [episode], play))

    assert "generated tokens, 0.000132 dollars, peak" in (tmp_path / "report.md").read_text()


def test_without_prices_no_dollars_are_said(tmp_path: Path) -> None:
    assert "dollars" not in write_report(make_folder(tmp_path, hand_made()))
    assert "dollars" not in (tmp_path / "report.md").read_text()


def test_a_session_that_never_closed_makes_the_cost_a_least(tmp_path: Path) -> None:
    make_folder(tmp_path, hand_made())
    readings = iter([5.0, 5.0, 47.0])
    session = Session(tmp_path / "sessions.jsonl", cut_bytes=0, clock=lambda: next(readings))
    session.__enter__()
    session.count(hand_made()[0])

    report = write_report(tmp_path)

    assert (report["seconds"], report["cut_sessions"]) == (42.0, 1)
    for kind in ("md", "html"):
        text = (tmp_path / f"report.{kind}").read_text()
        assert "at least 42 s, 3 requests, 120 prompt and 0 generated tokens" in text
        assert "killed, interrupted or are not over: 1; what their unfinished episodes" in text


def test_closed_sessions_are_all_that_was_spent(tmp_path: Path) -> None:
    make_folder(tmp_path, hand_made())
    readings = iter([5.0, 5.0, 47.0])
    with Session(tmp_path / "sessions.jsonl", cut_bytes=0, clock=lambda: next(readings)):
        pass

    report = write_report(tmp_path)

    assert (report["seconds"], report["cut_sessions"]) == (42.0, 0)
    assert "**Cost**: 42 s, 3 requests" in (tmp_path / "report.md").read_text()
