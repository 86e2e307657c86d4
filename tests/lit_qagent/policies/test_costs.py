"""What an episode and a search add up is what their policy has really sent and generated."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from data_collection.asking import Asking
from lit_qagent.agents.guided import GuidedAgent
from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.agents.selection import FirstSelector
from lit_qagent.core.records import (
    History,
    Message,
    Observation,
    RequestCost,
    Sampling,
    Usage,
)
from lit_qagent.policies import vllm as vllm_policy
from lit_qagent.policies.base import Policy
from lit_qagent.policies.chat import load_renderer
from lit_qagent.policies.openai import OpenAIPolicy
from lit_qagent.policies.recorded import RecordedPolicy
from lit_qagent.policies.recorded_answers import Request
from lit_qagent.policies.recording import SCHEMA_VERSION
from lit_qagent.policies.reprompt import RepromptPolicy
from lit_qagent.policies.vllm import VLLMPolicy
from tests.fault_server import completion, fault_server
from tests.tiny_model import save_tiny_model

HISTORY = History(
    head=(
        Message(role="system", content="Pick a way out."),
        Message(role="user", content="Door or window?"),
    )
)
DOORS = ("open[door]", "open[window]")
GREEDY = Sampling(temperature=0)


def count(
    policy: Policy,
    n: int,
    sampling: Sampling | None = None,
    choices: Sequence[str] = (),
) -> RequestCost:
    """Return what one decision adds up to, which is also what the policy and a search say."""
    prompt = PromptSpec(think=False, num_examples=0, constrain=bool(choices))
    observation = Observation(text="?", admissible=tuple(choices) or None)
    sampling = sampling or Sampling()
    agent = GuidedAgent(
        policy=policy, selector=FirstSelector(), num_candidates=n, sampling=sampling, prompt=prompt
    )
    asking = Asking(
        policy=policy,
        critic=policy,
        prompt=prompt,
        sampling=sampling,
        seed=0,
        task_id="a",
        iteration=0,
    )
    before = Usage()
    before.add(policy.usage)
    decided, episode = asyncio.run(_decide(agent, observation))
    spent = _difference(policy.usage, before)
    before.add(spent)
    asyncio.run(_search_once(asking, observation, n))
    searched = asking.cost
    assert len(decided) == n
    assert asdict(spent) == episode.to_dict()
    assert _difference(policy.usage, before) == RequestCost(
        requests=searched.requests,
        prompt_tokens=searched.prompt_tokens,
        generated_tokens=searched.generated_tokens,
    )
    return spent


async def _decide(agent: GuidedAgent, observation: Observation) -> tuple[list[str], Usage]:
    usage = Usage()
    decision = await agent.decide(
        HISTORY, observation, seed=0, on_batch=lambda batch: usage.add(batch.cost)
    )
    await agent.policy.close()
    return [proposal.text for proposal in decision.proposed.proposals], usage


async def _search_once(asking: Asking, observation: Observation, n: int) -> None:
    await asking.propose(HISTORY, observation, n, "expand", 0)
    await asking.policy.close()


def _difference(now: Usage, before: Usage) -> RequestCost:
    counts = {name: value - before.to_dict()[name] for name, value in now.to_dict().items()}
    return RequestCost(**counts)


# --- a server -----------------------------------------------------------------------------------


def test_a_server_that_ignores_n_is_paid_for_every_request_when_answers_are_checked() -> None:
    with fault_server([completion("open[door]", prompt_tokens=100)]) as server:
        policy = RepromptPolicy(OpenAIPolicy("m", base_url=server.base_url))
        spent = count(policy, 5, choices=DOORS)
        assert len(server.requests) == 5 + 5
    assert spent == RequestCost(requests=5, prompt_tokens=500, generated_tokens=20)


def test_what_is_asked_again_is_added_to_what_it_had_cost() -> None:
    answers = [completion("jump", "run", generated=6), completion("open[door]", prompt_tokens=9)]
    with fault_server(answers) as server:
        policy = RepromptPolicy(OpenAIPolicy("m", base_url=server.base_url))
        spent = count(policy, 2, choices=DOORS)
    assert spent == RequestCost(requests=3, prompt_tokens=7 + 9 + 9, generated_tokens=6 + 4 + 4)


def test_greedy_copies_of_a_server_cost_one_answer() -> None:
    with fault_server([completion("jump", generated=9)]) as server:
        spent = count(OpenAIPolicy("m", base_url=server.base_url), 4, GREEDY)
    assert spent == RequestCost(requests=1, prompt_tokens=7, generated_tokens=9)


def test_choices_that_nobody_asked_for_are_paid_for_too() -> None:
    with fault_server([completion("a", "b", "c", generated=9)]) as server:
        spent = count(OpenAIPolicy("m", base_url=server.base_url), 2)
    assert spent == RequestCost(requests=1, prompt_tokens=7, generated_tokens=9)


# --- vLLM ---------------------------------------------------------------------------------------


class Engine:
    """Samples nothing: gives the first tokens it may, and counts what it is asked for."""

    is_dead = False

    def __init__(self) -> None:
        self.drawn: list[int] = []

    async def generate(self, prompt_ids: list[int], params: SimpleNamespace) -> SimpleNamespace:
        self.drawn.append(params.n)
        tokens = params.choice_ids[0] if params.choice_ids else [1, 2, 3]
        return SimpleNamespace(
            outputs=[
                SimpleNamespace(
                    index=index,
                    text="go",
                    token_ids=tokens,
                    cumulative_logprob=None,
                    finish_reason="stop",
                )
                for index in range(params.n)
            ]
        )

    def close(self) -> None:
        pass


class EnginelessPolicy(VLLMPolicy):
    """Has an engine that is none."""

    def __init__(self, model: Path) -> None:
        super().__init__(str(model))
        self.engine = Engine()

    def _start(self) -> Any:  # noqa: ANN401 (private to the module)
        engine = cast(Any, self.engine)
        return vllm_policy._Running(engine=engine, renderer=load_renderer(self.model))


@pytest.fixture
def engineless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EnginelessPolicy:
    def params(n: int, *_: object, choice_ids: object = (), **__: object) -> SimpleNamespace:
        return SimpleNamespace(n=n, choice_ids=choice_ids)

    monkeypatch.setattr(vllm_policy, "sampling_params", params)
    return EnginelessPolicy(save_tiny_model(tmp_path / "tiny"))


@pytest.mark.parametrize("choices", [(), DOORS])
def test_greedy_copies_of_vllm_cost_one_answer(
    engineless: EnginelessPolicy, choices: Sequence[str]
) -> None:
    greedy = count(engineless, 3, GREEDY, choices)
    sampled = count(engineless, 3, choices=choices)
    assert engineless.engine.drawn == [1, 1, 3, 3]
    assert greedy.requests == sampled.requests == 1
    assert greedy.prompt_tokens == sampled.prompt_tokens > 0
    assert 3 * greedy.generated_tokens == sampled.generated_tokens > 0


def test_a_single_choice_costs_nothing_as_nothing_is_sent(engineless: EnginelessPolicy) -> None:
    assert count(engineless, 3, choices=["open[door]"]) == RequestCost()
    assert engineless.engine.drawn == []


# --- recordings ---------------------------------------------------------------------------------


def test_a_replay_costs_what_the_recording_did(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with fault_server([completion("open[door]", prompt_tokens=100)]) as server:
        inner = RepromptPolicy(OpenAIPolicy("m", base_url=server.base_url))
        recorder = RecordedPolicy(path, "record", inner)
        recorded = [count(recorder, 5, choices=DOORS), count(recorder, 5, GREEDY, DOORS)]
    replay = RecordedPolicy(path)
    assert [count(replay, 5, choices=DOORS), count(replay, 5, GREEDY, DOORS)] == recorded
    assert [cost.requests for cost in recorded] == [5, 1]


@pytest.mark.parametrize(
    ("sampling", "generated"), [(Sampling(), 7 + 8 + 4), (GREEDY, 7 + 4)], ids=str
)
def test_recordings_of_before_costs_were_stated_are_read(
    tmp_path: Path, sampling: Sampling, generated: int
) -> None:
    extra = {"requests": 1, "prompt_tokens": 30, "generated_tokens": 4}
    old = {"text": "go", "prompt_tokens": 20, "log_prob": None, "finish_reason": "stop"}
    nothing = dict.fromkeys(extra, 0)
    request = Request(messages=HISTORY.head, n=2, sampling=sampling, constraint=None, seed=1)
    answer = {
        "key": request.key,
        "chat": request.chat_key,
        "index": 0,
        "proposals": [
            old | {"num_tokens": 7, "extra": extra},
            old | {"num_tokens": 8, "extra": nothing},
        ],
    }
    path = tmp_path / "answers.jsonl"
    header = {"schema_version": SCHEMA_VERSION, "policy": {"policy": "old"}}
    path.write_text("".join(json.dumps(line) + "\n" for line in (header, answer)))

    replay = RecordedPolicy(path)
    proposals = asyncio.run(replay.propose(HISTORY.head, 2, sampling, seed=1))

    assert [(p.text, p.num_tokens) for p in proposals] == [("go", 7), ("go", 8)]
    assert replay.usage == Usage(requests=2, prompt_tokens=50, generated_tokens=generated)
    assert sum((p.cost for p in proposals), RequestCost()) == RequestCost(**replay.usage.to_dict())
