import asyncio
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lit_qagent.core.errors import (
    ConfigError,
    ContextOverflow,
    DataError,
    PolicyFailure,
    StoreError,
)
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from lit_qagent.policies.base import Policy
from lit_qagent.policies.openai import OpenAIPolicy
from lit_qagent.policies.recorded import RecordedPolicy
from tests.fault_server import completion, fault_server

CHAT = (Message(role="system", content="Rules."), Message(role="user", content="Hello ünï"))


class DicePolicy(Policy):
    """Never gives the same answer twice, so that only a recording can repeat one."""

    def __init__(self, *, name: str = "dice", delay_s: float = 0.0) -> None:
        super().__init__()
        self.name = name
        self.delay_s = delay_s
        self.is_closed = False
        self.failure: Exception | None = None

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        await asyncio.sleep(self.delay_s)
        if self.failure is not None:
            raise self.failure
        proposals = [
            Proposal(
                text=f"roll {random.random()}",
                num_tokens=2,
                log_prob=-random.random(),
                finish_reason="length",
            )
            for _ in range(n)
        ]
        return self.charge(proposals, prompt_tokens=5, generated_tokens=2 * n)

    def settings(self) -> dict[str, Any]:
        return {"policy": self.name}

    async def close(self) -> None:
        self.is_closed = True


def ask(
    policy: Policy,
    n: int = 2,
    sampling: Sampling | None = None,
    *,
    chat: Sequence[Message] = CHAT,
    constraint: Constraint | None = None,
    seed: int | None = 1,
) -> list[Proposal]:
    answer = policy.propose(chat, n, sampling or Sampling(), constraint=constraint, seed=seed)
    return asyncio.run(answer)


def close(policy: Policy) -> None:
    asyncio.run(policy.close())


def record(path: Path, dice: DicePolicy | None = None) -> RecordedPolicy:
    return RecordedPolicy(path, "record", dice or DicePolicy())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "answers.jsonl"


def test_a_replay_gives_every_field_again_without_the_policy(path: Path) -> None:
    recorder = record(path)
    first = ask(recorder)
    settings = recorder.settings()
    close(recorder)
    assert isinstance(recorder.policy, DicePolicy)
    assert recorder.policy.is_closed
    replay = RecordedPolicy(path)
    assert ask(replay) == first
    assert ask(replay) == first
    assert replay.settings() == settings == {"policy": "recorded", "answers": {"policy": "dice"}}
    # Two answers were given, so twice their cost is counted.
    assert replay.usage.to_dict() == {
        "requests": 2,
        "prompt_tokens": 10,
        "generated_tokens": 8,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"n": 3},
        {"seed": 2},
        {"seed": None},
        {"sampling": Sampling(temperature=0.5)},
        {"sampling": Sampling(top_p=0.5)},
        {"sampling": Sampling(max_tokens=5)},
        {"sampling": Sampling(stop=("x",))},
        {"constraint": Constraint(choices=("a", "b"))},
        {"constraint": Constraint(regex="a")},
    ],
    ids=str,
)
def test_whatever_decides_an_answer_is_part_of_its_key(path: Path, change: dict[str, Any]) -> None:
    recorder = record(path)
    first = ask(recorder)
    other = ask(recorder, **change)
    assert other[:2] != first
    close(recorder)
    replay = RecordedPolicy(path)
    assert (ask(replay, **change), ask(replay)) == (other, first)


def test_a_request_that_was_not_recorded_is_named(path: Path) -> None:
    recorder = record(path)
    ask(recorder)
    close(recorder)
    replay = RecordedPolicy(path, policy=DicePolicy())  # which is never asked
    with pytest.raises(DataError, match=r"no answer to this request: n=2, seed=9, .*'Hello ünï'"):
        ask(replay, seed=9)
    with pytest.raises(DataError, match="the same messages were recorded with another n, seed"):
        ask(replay, seed=9)
    other = (Message(role="user", content="Never asked"),)
    with pytest.raises(DataError, match="'Never asked'") as caught:
        ask(replay, chat=other)
    assert "the same messages" not in str(caught.value)


def test_roles_and_borders_of_messages_count(path: Path) -> None:
    recorder = record(path)
    ask(recorder, chat=[Message(role="user", content="a"), Message(role="user", content="b")])
    close(recorder)
    replay = RecordedPolicy(path)
    for chat in (
        [Message(role="user", content="a"), Message(role="assistant", content="b")],
        [Message(role="user", content="ab")],
    ):
        with pytest.raises(DataError, match="has no answer"):
            ask(replay, chat=chat)


def test_recording_goes_on_where_it_was_stopped(path: Path) -> None:
    recorder = record(path)
    first = ask(recorder)
    close(recorder)
    again = record(path)
    assert ask(again) == first
    assert again.usage.requests == 0
    more = ask(again, seed=2)
    close(again)
    replay = RecordedPolicy(path)
    assert (ask(replay), ask(replay, seed=2)) == (first, more)


def test_without_a_seed_answers_come_in_the_order_of_the_requests(path: Path) -> None:
    dice = DicePolicy()
    recorder = record(path, dice)
    first = ask(recorder, seed=None)
    dice.failure = PolicyFailure("down")
    with pytest.raises(PolicyFailure, match="down"):
        ask(recorder, seed=None)
    dice.failure = None
    second = ask(recorder, seed=None)
    assert second != first
    close(recorder)
    replay = RecordedPolicy(path)
    assert (ask(replay, seed=None), ask(replay, seed=None)) == (first, second)
    with pytest.raises(DataError, match="seed=None"):
        ask(replay, seed=None)
    again = record(path)
    assert [ask(again, seed=None) for _ in range(3)][:2] == [first, second]
    close(again)


def test_the_same_request_twice_at_once_has_one_answer(path: Path) -> None:
    recorder = record(path, DicePolicy(delay_s=0.01))

    async def run() -> list[list[Proposal]]:
        return await asyncio.gather(
            *(recorder.propose(CHAT, 2, Sampling(), seed=1) for _ in range(3))
        )

    answers = asyncio.run(run())
    assert answers == [answers[0]] * 3
    assert len(path.read_text().splitlines()) == 2


def test_an_overflow_is_an_answer_and_a_failure_is_none(path: Path) -> None:
    dice = DicePolicy()
    recorder = record(path, dice)
    dice.failure = ContextOverflow("2000 tokens are too many")
    with pytest.raises(ContextOverflow, match="too many"):
        ask(recorder)
    dice.failure = PolicyFailure("down")
    with pytest.raises(PolicyFailure, match="down"):
        ask(recorder, seed=2)
    close(recorder)
    replay = RecordedPolicy(path)
    with pytest.raises(ContextOverflow, match="2000 tokens are too many"):
        ask(replay)
    with pytest.raises(DataError, match="has no answer"):
        ask(replay, seed=2)
    assert replay.usage.requests == 0


# --- the file -----------------------------------------------------------------------------------


def test_wherever_a_kill_cuts_the_file_what_is_whole_counts(path: Path) -> None:
    recorder = record(path)
    answers = {seed: ask(recorder, 1, seed=seed) for seed in range(3)}
    close(recorder)
    data = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        again = record(path)
        kept = sum(end <= size for end in ends) - 1
        for seed in range(3):
            assert (ask(again, 1, seed=seed) == answers[seed]) == (seed < kept)
        close(again)
        assert len(path.read_text().splitlines()) == 4
        replay = RecordedPolicy(path)
        assert all(ask(replay, 1, seed=seed) for seed in range(3))


def test_a_replay_says_that_a_line_was_cut_and_leaves_the_file(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = record(path)
    first = ask(recorder)
    close(recorder)
    data = path.read_bytes() + b'{"key": "ab'
    path.write_bytes(data)
    replay = RecordedPolicy(path)
    assert ask(replay) == first
    assert "ends in a line that was cut short" in caplog.text
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "line 2 is damaged"),
        ("[1]", "line 2 is damaged"),
        ('{"key": "a", "chat": "b", "index": 0}', "line 2 is damaged"),
        ('{"key": "a", "chat": "b", "index": 0, "proposals": [{}]}', "line 2 is damaged"),
    ],
)
def test_a_damaged_line_is_named(path: Path, line: str, message: str) -> None:
    recorder = record(path)
    ask(recorder)
    close(recorder)
    header, rest = path.read_text().split("\n", 1)
    path.write_text(f"{header}\n{line}\n{rest}")
    with pytest.raises(DataError, match=message):
        ask(RecordedPolicy(path))
    with pytest.raises(DataError, match=message):
        ask(record(path))


def test_half_letters_in_a_file_become_whole_ones(path: Path) -> None:
    recorder = record(path)
    ask(recorder)
    close(recorder)
    path.write_text(path.read_text().replace("roll ", "roll \\ud83d "))
    assert all(answer.text.startswith("roll \ufffd ") for answer in ask(RecordedPolicy(path)))


def test_files_that_are_no_recording_are_refused(path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read .* record it first"):
        ask(RecordedPolicy(path))
    path.parent.mkdir()
    path.touch()
    with pytest.raises(DataError, match="is empty; record it"):
        ask(RecordedPolicy(path))
    path.write_text('{"schema_version": 99, "policy": {}}\n')
    with pytest.raises(DataError, match="no recording of schema version 1"):
        ask(RecordedPolicy(path))


def test_two_policies_never_mix_and_never_write_at_once(path: Path) -> None:
    recorder = record(path)
    ask(recorder)
    with pytest.raises(StoreError, match="is being written by another policy or process"):
        ask(record(path))
    close(recorder)
    with pytest.raises(StoreError, match='"dice" there, "cards" now'):
        ask(record(path, DicePolicy(name="cards")))


def test_a_full_disk_leaves_whole_lines(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = record(path)
    first = ask(recorder)
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))
    with pytest.raises(StoreError, match=r"cannot be written \(the disk is full\); free some"):
        ask(recorder, seed=2)
    monkeypatch.undo()
    second = ask(recorder, seed=2)
    close(recorder)
    replay = RecordedPolicy(path)
    assert (ask(replay), ask(replay, seed=2)) == (first, second)


def test_neither_key_nor_messages_are_in_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with fault_server([completion("answer")]) as server:
        recorder = RecordedPolicy(path, "record", OpenAIPolicy("m", base_url=server.base_url))

        async def run() -> None:
            await recorder.propose(CHAT, 1, Sampling(), seed=1)
            await recorder.close()

        asyncio.run(run())
    text = path.read_text()
    assert "answer" in text
    assert "sk-very-secret" not in text
    assert "Hello" not in text
    assert json.loads(text.splitlines()[0])["policy"]["model"] == "m"


def test_settings_that_contradict_are_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="needs the policy to record"):
        RecordedPolicy(path, "record")
    with pytest.raises(ConfigError, match="must be record or replay, got 'play'"):
        RecordedPolicy(path, "play")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="n=0"):
        ask(record(path, DicePolicy()), 0)
