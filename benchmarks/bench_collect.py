"""How close the collector comes to the bare engine, and how far it is from one request at a time.

Three rows of one run, with real vLLM and SmolLM2: (a) the engine alone, given the same requests
all at once; (b) the collector; (c) a client in the manner of 2024: one request in flight, n samples
are n requests. And what the search itself costs, measured with the scripted policy.

    python benchmarks/bench_collect.py [--json PATH] [--trees 28] [--search_only]
"""

import argparse
import asyncio
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from rows import add_json_option, machine, show

from data_collection.collect import collect
from data_collection.setup import SearchSetup
from data_collection.spec import SearchSpec
from data_collection.store import TreeStore
from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.core.records import (
    Constraint,
    Message,
    Observation,
    Proposal,
    Sampling,
    Step,
    Task,
    total_cost,
)
from lit_qagent.environments.base import Environment, Outcome
from lit_qagent.environments.splits import SplitSizes
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.policies.base import Policy
from lit_qagent.policies.scripted import ScriptedPolicy
from lit_qagent.policies.vllm import VLLMPolicy, sampling_params
from lit_qagent.policies.vllm_engine import EngineSpec, engine_args

MODEL = "SmolLM2-135M-Instruct"
MAX_NUM_SEQS = 64
MAX_ACTION_TOKENS = 64  # answers end by themselves after about 40
SHARED_WORDS = 385  # about 555 tokens, the part of the prompt that all requests share
SAMPLING = Sampling(temperature=1.0, max_tokens=MAX_ACTION_TOKENS)
PROMPT = PromptSpec(think=False, num_examples=0)


class Harbour(Environment):
    """Long rules, short answers: prompts of about 600 tokens that share about 560."""

    name = "harbour"
    version = "1"

    def __init__(self, num_tasks: int) -> None:
        super().__init__(max_steps=3)
        self.num_tasks = num_tasks

    def tasks(self, split: str) -> Sequence[Task]:
        ships = [f"Berth ship {number}." for number in range(self.num_tasks)]
        return [
            Task(task_id=f"{split}/{number}", instruction=text, split=split)
            for number, text in enumerate(ships)
        ]

    def instructions(self) -> str:
        things = ("barge", "ferry", "tug", "yacht", "freighter")
        places = ("north quay", "dry dock", "outer mole", "fish market", "coal pier", "old lock")
        rules = (
            f"Rule {number}: a {thing} at the {place} waits for the tide and then asks the pilot."
            for number, (place, thing) in enumerate(itertools.product(places, things), start=1)
        )
        words = " ".join(rules).split()[:SHARED_WORDS]
        return f"{' '.join(words)} Say in two long sentences what to do."

    def data_hash(self) -> str:
        return str(self.num_tasks)

    def _start(self, task: Task) -> Observation:
        self._state = 0
        return Observation(text=task.instruction)

    def _act(self, command: str) -> Outcome:
        self._state += 1
        return Outcome(observation=Observation(text=f"Noted ({self._state})."))


@dataclass
class Asked:
    """One request as it reached the policy."""

    messages: Sequence[Message]
    n: int
    seed: int | None
    prompt_tokens: int = 0


class Watched(Policy):
    """Hands requests on and notes them; with ``one_by_one`` n samples are n requests."""

    def __init__(self, policy: VLLMPolicy, *, one_by_one: bool = False) -> None:
        super().__init__()
        self.policy = policy
        self.one_by_one = one_by_one
        self.max_num_seqs = policy.max_num_seqs
        self.asked: list[Asked] = []

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        answers: list[Proposal] = []
        parts = [(1, (seed or 0) + i) for i in range(n)] if self.one_by_one else [(n, seed)]
        for count, part_seed in parts:
            drawn = await self.policy.propose(messages, count, sampling, seed=part_seed)
            cost = total_cost(drawn)
            self.asked.append(Asked(messages, count, part_seed, cost.prompt_tokens))
            self.usage.add(cost)
            answers += drawn
        return answers

    def settings(self) -> dict[str, Any]:
        return self.policy.settings()


def run_collector(
    policy: Watched, trees: int, concurrency: int | Literal["auto"], iterations: int
) -> dict[str, Any]:
    """Collect with a policy whose engine runs already."""
    setup = SearchSetup(
        environment=Harbour(trees),
        policy=policy,
        search=SearchSpec(num_iterations=iterations, num_candidates=5, stop_at_success=False),
        prompt=PROMPT,
        sampling=SAMPLING,
        seed=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        begin = Clock()
        collect(
            setup,
            setup.environment.tasks("train"),
            TreeStore(Path(folder) / "trees"),
            concurrency=concurrency,
        )
        return row_of(policy.usage.generated_tokens, begin, policy.asked)


def run_engine(requests: Sequence[Asked], policy: VLLMPolicy) -> dict[str, Any]:
    """Give vLLM's own engine the same requests, all at once."""
    from vllm import TokensPrompt
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    from lit_qagent.policies.chat import load_renderer
    from lit_qagent.policies.pretrained import resolve_model

    model = resolve_model(policy.model)
    renderer = load_renderer(model)
    spec = EngineSpec(
        model=model,
        dtype=policy.dtype,
        max_model_len=policy.max_model_len,
        max_num_seqs=policy.max_num_seqs,
        kv_cache_gb=policy.kv_cache_gb,
    )
    engine = LLMEngine.from_engine_args(EngineArgs(**engine_args(spec, one_process=True)))
    prompts = [renderer.prompt_ids(each.messages) for each in requests]

    def drain(first: int, chosen: Sequence[Asked]) -> int:
        for number, each in enumerate(chosen, start=first):
            params = sampling_params(
                each.n,
                SAMPLING,
                MAX_ACTION_TOKENS,
                constraint=None,
                seed=each.seed,
                log_probs=False,
            )
            prompt = TokensPrompt(prompt_token_ids=prompts[number % len(prompts)])
            engine.add_request(str(number), prompt, params)
        tokens = 0
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    tokens += sum(len(child.token_ids) for child in output.outputs)
        return tokens

    drain(len(requests), requests[:1])  # warm
    engine.reset_prefix_cache()
    begin = Clock()
    tokens = drain(0, requests)
    row = row_of(tokens, begin, requests)
    engine.engine_core.shutdown()
    return row


class Clock:
    """Wall time, and CPU time of this process, which other programs on the machine stretch less."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def seconds(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


def row_of(tokens: int, begin: Clock, asked: Sequence[Asked]) -> dict[str, Any]:
    seconds, cpu_seconds = begin.seconds()
    samples = sum(each.n for each in asked)
    return {
        "tokens_per_second": round(tokens / seconds, 1),
        "tokens_per_cpu_second": round(tokens / cpu_seconds, 1),
        "tokens": tokens,
        "seconds": round(seconds, 2),
        "requests": len(asked),
        "samples": samples,
        "mean_prompt_tokens": round(sum(each.prompt_tokens for each in asked) / len(asked), 1),
        "mean_action_tokens": round(tokens / samples, 1),
    }


def bench_engine(trees: int) -> dict[str, Any]:
    """Measure the three rows."""
    engine = VLLMPolicy(MODEL, max_model_len=1024, max_num_seqs=MAX_NUM_SEQS)
    warm = [Message(role="system", content="Be brief."), Message(role="user", content="Hello.")]
    asyncio.run(engine.propose(warm, 2, SAMPLING, seed=0))
    collector = Watched(engine)
    rows = {"collector": run_collector(collector, trees, "auto", iterations=2)}
    rows["sequential"] = run_collector(Watched(engine, one_by_one=True), 1, 1, iterations=5)
    asyncio.run(engine.close())
    rows["engine"] = run_engine(collector.asked, engine)
    speed = {name: row["tokens_per_second"] for name, row in rows.items()}
    return {
        "fraction_of_engine": round(speed["collector"] / speed["engine"], 3),
        "ratio_to_sequential": round(speed["collector"] / speed["sequential"], 2),
        "rows": [{"claim": name, **row} for name, row in rows.items()],
    }


class Stopwatch:
    """Adds up the CPU time of the world and the policy, without that of reading the clock."""

    def __init__(self) -> None:
        self.seconds = 0.0
        readings = [time.thread_time() for _ in range(10_000)]
        self._reading_s = (readings[-1] - readings[0]) / (len(readings) - 1)

    def add(self, begin: float) -> None:
        self.seconds += time.thread_time() - begin - self._reading_s


class TimedToy(ToyWorld):
    """A toy world that says how long it took."""

    watch: Stopwatch

    def step(self, action: str) -> Step:
        begin = time.thread_time()
        try:
            return super().step(action)
        finally:
            self.watch.add(begin)

    def fork(self) -> Self:
        begin = time.thread_time()
        try:
            return super().fork()
        finally:
            self.watch.add(begin)


class TimedScripted(ScriptedPolicy):
    """A scripted policy that says how long it took."""

    watch: Stopwatch

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        begin = time.thread_time()
        try:
            return await super().propose(messages, n, sampling, constraint=constraint, seed=seed)
        finally:
            self.watch.add(begin)


def bench_search(repeats: int = 3) -> dict[str, Any]:
    """Measure nodes per second of one core: of all of it, and without the world and the policy."""
    whole, own = zip(*(_nodes_per_second() for _ in range(repeats)), strict=True)
    return {
        "nodes_per_second": round(statistics.median(own)),
        "nodes_per_second_with_world_and_policy": round(statistics.median(whole)),
    }


def _nodes_per_second() -> tuple[float, float]:
    """Search once as it is, and once with a stopwatch on the world and the policy."""
    watch = TimedToy.watch = TimedScripted.watch = Stopwatch()
    nodes, seconds = _search_toy(ToyWorld, ScriptedPolicy)
    _search_toy(TimedToy, TimedScripted)
    return nodes / seconds, nodes / (seconds - watch.seconds)


def _search_toy(world: type[ToyWorld], policy: type[ScriptedPolicy]) -> tuple[int, float]:
    """Return the nodes of a whole collection and the CPU time it took."""
    setup = SearchSetup(
        environment=world(
            depth=5, num_actions=8, max_steps=7, splits=SplitSizes(train=200, valid=1, test=1)
        ),
        policy=policy("uniform"),
        search=SearchSpec(num_iterations=30, num_candidates=5, stop_at_success=False),
        prompt=PromptSpec(think=False, num_examples=0, constrain=True),
        sampling=Sampling(),
        seed=0,
    )
    tasks = setup.environment.tasks("train")
    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        summary = collect(setup, tasks, TreeStore(Path(folder) / "trees"), concurrency=32)
        seconds = time.process_time() - begin
    return summary.nodes, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_json_option(parser)
    parser.add_argument("--trees", type=int, default=28, help="trees that the collector searches")
    parser.add_argument("--search_only", action="store_true", help="no engine")
    options = parser.parse_args()
    result: dict[str, Any] = {"rows": [{"claim": "search", **bench_search()}]}
    if not options.search_only:
        measured = bench_engine(options.trees)
        result = measured | {"rows": result["rows"] + measured["rows"]}
    ratios = {name: value for name, value in result.items() if name != "rows"}
    show([*result["rows"], *([{"claim": "ratios", **ratios}] if ratios else [])], None)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), **result}, indent=1))


if __name__ == "__main__":
    main()
