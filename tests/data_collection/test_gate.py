import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from data_collection.gate import Gate, Tuner
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling
from lit_qagent.policies.base import Policy
from lit_qagent.policies.recorded import RecordedPolicy
from lit_qagent.policies.reprompt import RepromptPolicy

CHAT = [Message(role="user", content="go")]


class Engine(Policy):
    """Answers after as long as its batch takes; counts what is in flight."""

    def __init__(self, delay_s: float = 0.01) -> None:
        super().__init__()
        self.delay_s = delay_s
        self.in_flight = 0
        self.most = 0
        self.order: list[int | None] = []

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        self.order.append(seed)
        self.in_flight += n
        self.most = max(self.most, self.in_flight)
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.in_flight -= n
        proposals = [Proposal(text="a", num_tokens=1)] * n
        return self.charge(proposals, prompt_tokens=0, generated_tokens=n)

    def settings(self) -> dict[str, str]:
        return {"policy": "engine"}


async def _ask(gate: Gate, n: int, seed: int = 0) -> int:
    return len(await gate.propose(CHAT, n, Sampling(), seed=seed))


def test_no_more_sequences_than_the_limit_are_let_through() -> None:
    engine = Engine()
    gate = Gate(engine, limit=7)

    async def ask_all() -> None:
        await asyncio.gather(*(_ask(gate, 3, seed) for seed in range(9)))

    asyncio.run(ask_all())
    assert engine.most == 6
    assert engine.order == list(range(9))
    assert (gate.in_flight, gate.queued, gate.answers) == (0, 0, 9)


def test_a_request_larger_than_the_limit_goes_alone() -> None:
    engine = Engine()
    gate = Gate(engine, limit=2)

    async def ask_all() -> list[int]:
        return list(await asyncio.gather(_ask(gate, 1), _ask(gate, 5), _ask(gate, 1)))

    assert asyncio.run(ask_all()) == [1, 5, 1]
    assert engine.most == 5


def test_without_a_limit_all_go_at_once() -> None:
    engine = Engine()

    async def ask_all() -> None:
        gate = Gate(engine)
        await asyncio.gather(*(_ask(gate, 4) for _ in range(50)))

    asyncio.run(ask_all())
    assert engine.most == 200


def test_cancelled_requests_give_their_place_away() -> None:
    engine = Engine(delay_s=0.02)
    gate = Gate(engine, limit=1)

    async def ask_and_cancel() -> None:
        tasks = [asyncio.create_task(_ask(gate, 1, seed)) for seed in range(4)]
        await asyncio.sleep(0.005)
        tasks[0].cancel()
        tasks[1].cancel()
        assert await asyncio.gather(*tasks[2:]) == [1, 1]

    asyncio.run(ask_and_cancel())
    assert engine.order == [0, 2, 3]
    assert (gate.in_flight, gate.queued) == (0, 0)


def test_a_failure_gives_its_place_away() -> None:
    class Broken(Engine):
        async def propose(self, *args: object, **kwargs: object) -> list[Proposal]:
            raise RuntimeError("no")

    gate = Gate(Broken(), limit=1)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            asyncio.run(_ask(gate, 1))
    assert gate.in_flight == 0


def test_the_gate_passes_for_its_policy() -> None:
    engine = Engine()
    gate = Gate(engine)
    assert gate.settings() == engine.settings()
    asyncio.run(_ask(gate, 2))
    assert gate.usage is engine.usage
    assert gate.usage.generated_tokens == 2


def test_a_known_batch_is_filled_with_a_quarter_waiting() -> None:
    engine = Engine()
    engine.max_num_seqs = 64
    tuner = Tuner(gate=Gate(engine))
    assert (tuner.target, tuner.is_settled, tuner.gate.limit) == (80, True, 80)
    tuner.gate.in_flight, tuner.gate.queued = 50, 10
    assert tuner.missing == 20


def test_a_limit_set_by_hand_stays() -> None:
    engine = Engine()
    engine.max_num_seqs = 64
    tuner = Tuner(gate=Gate(engine, limit=12))
    assert (tuner.target, tuner.is_settled, tuner.gate.limit) == (12, True, 12)


@pytest.mark.parametrize("mode", ["reprompt", "record", "replay"])
def test_the_batch_of_a_wrapped_policy_is_known_unless_it_is_not_asked(
    tmp_path: Path, mode: str
) -> None:
    engine = Engine()
    engine.max_num_seqs = 64
    wrapped: Policy
    if mode == "reprompt":
        wrapped = RepromptPolicy(engine)
    else:
        wrapped = RecordedPolicy(tmp_path / "a.jsonl", mode, engine)  # type: ignore[arg-type]
    tuner = Tuner(gate=Gate(wrapped))
    assert tuner.is_settled is (mode != "replay")
    assert tuner.target == (16 if mode == "replay" else 80)


class Plant:
    """An engine on paper: its speed grows with what is in flight up to a point."""

    def __init__(self, knee: int) -> None:
        self.knee = knee
        self.now = 0.0
        self.gate = Gate(Engine())
        self.tuner = Tuner(gate=self.gate, clock=lambda: self.now)

    def run(self, seconds: float, load: float = 1.0) -> None:
        for _ in range(int(seconds / 0.1)):
            self.now += 0.1
            in_flight = int(self.tuner.target * load)
            self.gate.in_flight = in_flight
            self.gate.answers += max(in_flight // 4, 1)
            self.gate.usage.generated_tokens += 10 * min(in_flight, self.knee)
            self.tuner.look()


@pytest.mark.parametrize(("knee", "expected"), [(16, 16), (100, 128), (64, 64), (10**6, 1024)])
def test_an_unknown_batch_grows_while_it_pays(knee: int, expected: int) -> None:
    plant = Plant(knee)
    plant.run(60)
    assert plant.tuner.is_settled
    assert plant.tuner.target == expected


def test_nothing_is_learnt_while_there_is_too_little_to_do() -> None:
    plant = Plant(1000)
    plant.run(30, load=0.5)
    assert (plant.tuner.target, plant.tuner.is_settled) == (16, False)
