"""Candidates scored per CPU second along one episode: ours, the original's way, batched sequences.

All three compute beta * (log pi - log pi_ref) of the same candidates with SmolLM2-135M in float32:

ours      keys and values kept over the episode, candidates as branches, one copy of the weights
original  two whole models without an adapter, one full forward pass per candidate, all logits
batched   one copy of the weights, the candidates of a step as a batch of full sequences
scalar    as ours with a scalar head, which needs no reference pass and no logits
base      what all of them need before the first weight is read: imports, tokenizer, the episode

The slow sides score a part of the candidates, whose histories are as long as the mean of all, and
count what they scored. One thread and CPU seconds: what else the machine does
hardly matters. Memory is the peak of a process of its own, loading included, less that of the base;
the original's is that of the longest history, as it is ours.
"""

import argparse
import asyncio
import json
import random
import time
from typing import Any

import peft  # noqa: F401 (a part of the base)
import torch
import transformers.models.llama.modeling_llama  # noqa: F401 (a part of the base)
from rows import add_json_option, peak_rss_gb, run_side, show

from lit_qagent.core.records import History, Message
from lit_qagent.core.seeds import derive_seed
from lit_qagent.data.batch import collate_sequences
from lit_qagent.data.rendering import SequenceRenderer, TokenSequence
from lit_qagent.models.backbone import build_backbone
from lit_qagent.models.q_heads import ImplicitQHead, QHead, ScalarQHead
from lit_qagent.models.q_model import QModel
from lit_qagent.models.scorer import QScorer
from lit_qagent.models.specs import BackboneSpec, LoraSpec
from lit_qagent.policies.chat import load_renderer
from lit_qagent.policies.pretrained import resolve_model

MODEL = "SmolLM2-135M-Instruct"
NUM_STEPS = 7
MIDDLE = NUM_STEPS // 2
ORIGINAL_STEPS = (0, MIDDLE, NUM_STEPS - 1)
BETA = 0.1
HEAD_WORDS, OBSERVATION_WORDS = 330, 80  # as in ReAct on HotPotQA
_WORDS = (
    "river museum second northern writer album station bridge founded painter opened village "
    "between league island former court school award library director valley season century"
)
WORDS = _WORDS.split()


def make_episode(num_candidates: int) -> list[tuple[History, list[str]]]:
    """One history and its candidates per step; sizes as in ReAct on HotPotQA."""
    rng = random.Random(derive_seed("bench_scoring"))

    def text(num_words: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(num_words))

    head = (
        Message(role="system", content=f"Answer the question in steps. {text(HEAD_WORDS)}"),
        Message(role="user", content=f"Question: {text(18)}?"),
    )
    turns: tuple[Message, ...] = ()
    steps = []
    for _ in range(NUM_STEPS):
        candidates = [
            f"Thought: {text(18)}.\nAction: Search[{text(3)}]" for _ in range(num_candidates)
        ]
        steps.append((History(head=head, turns=turns), candidates))
        turns += (
            Message(role="assistant", content=rng.choice(candidates)),
            Message(role="user", content=f"Observation: {text(OBSERVATION_WORDS)}."),
        )
    return steps


def load_q_model(head: QHead | None = None) -> QModel:
    torch.manual_seed(0)
    spec = BackboneSpec(name=MODEL, dtype="float32")
    backbone = build_backbone(spec, LoraSpec(rank=16, alpha=32))
    q_model = QModel(backbone, head or ImplicitQHead(beta=BETA))
    for name, parameter in q_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    return q_model


def make_renderer() -> SequenceRenderer:
    return SequenceRenderer(load_renderer(resolve_model(MODEL)), 8192)


def run_base(num_candidates: int) -> dict[str, Any]:
    renderer = make_renderer()
    for history, candidates in make_episode(num_candidates):
        renderer.render(history, candidates)
    return {"peak_rss_gb": peak_rss_gb()}


def run_scalar(num_candidates: int) -> dict[str, Any]:
    return run_ours(num_candidates, ScalarQHead())


def run_ours(num_candidates: int, head: QHead | None = None) -> dict[str, Any]:
    scorer = QScorer(load_q_model(head), make_renderer())
    episode = make_episode(num_candidates)

    async def play() -> list[list[float]]:
        return [await scorer.score(history, candidates) for history, candidates in episode]

    began = time.process_time()
    scores = asyncio.run(play())
    return result(scores, num_candidates * NUM_STEPS, time.process_time() - began)


def run_original(num_candidates: int) -> dict[str, Any]:
    """Score the first candidate of the first, the middle and the last step."""
    # Two plain models, as the original has them: the adapter is part of the policy's weights.
    policy = load_q_model().backbone.model.merge_and_unload()
    reference = load_q_model().backbone.model.unload()
    renderer = make_renderer()
    episode = make_episode(num_candidates)
    rendered = [renderer.render(*episode[index])[0] for index in ORIGINAL_STEPS]
    began = time.process_time()
    with torch.inference_mode():
        scores = [
            [BETA * (full_log_prob(policy, s) - full_log_prob(reference, s))] for s in rendered
        ]
    return result(scores, len(rendered), time.process_time() - began)


def full_log_prob(model: torch.nn.Module, sequence: TokenSequence) -> float:
    prompt_ids, action_ids = sequence.prompt_ids, sequence.action_ids
    logits = model(input_ids=torch.tensor([prompt_ids + action_ids])).logits.float()
    log_probs = torch.log_softmax(logits, dim=-1)[0, len(prompt_ids) - 1 : -1]
    return float(log_probs.gather(-1, torch.tensor(action_ids)[:, None]).sum())


def run_batched(num_candidates: int) -> dict[str, Any]:
    """Score all candidates of the middle step."""

    q_model, renderer = load_q_model(), make_renderer()
    sequences = renderer.render(*make_episode(num_candidates)[MIDDLE])
    began = time.process_time()
    with torch.inference_mode():
        scores = [q_model(collate_sequences([[s] for s in sequences])).tolist()]
    return result(scores, num_candidates, time.process_time() - began)


def result(scores: list[list[float]], num_scored: int, seconds: float) -> dict[str, Any]:
    return {
        "scores": scores,
        "candidates_per_cpu_second": num_scored / seconds,
        "scored": num_scored,
        "cpu_seconds": seconds,
        "peak_rss_gb": peak_rss_gb(),
    }


SIDES = {
    "ours": run_ours,
    "original": run_original,
    "batched": run_batched,
    "scalar": run_scalar,
    "base": run_base,
}
RUNS = (("base", 5), ("ours", 5), ("original", 5), ("batched", 5), ("scalar", 5), ("ours-8", 8))


def run_all() -> tuple[dict[str, dict[str, Any]], float]:
    """Run the sides; returns them with the largest difference of a score."""
    sides = {name: run_side(__file__, name.split("-")[0], "-n", str(n)) for name, n in RUNS}
    ours = sides["ours"]["scores"]
    pairs = list(zip(sides["batched"]["scores"][0], ours[MIDDLE], strict=True))
    for row, index in zip(sides["original"]["scores"], ORIGINAL_STEPS, strict=True):
        pairs.append((row[0], ours[index][0]))
    return sides, max(abs(theirs - mine) for theirs, mine in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=SIDES, help="run one side only (used by this script)")
    parser.add_argument("-n", type=int, default=5, help="candidates per step, with --side")
    add_json_option(parser)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(SIDES[options.side](options.n)))
        return
    sides, difference = run_all()
    key = "candidates_per_cpu_second"
    rate = {name: side[key] for name, side in sides.items() if key in side}
    added = {
        name: side["peak_rss_gb"] - sides["base"]["peak_rss_gb"] for name, side in sides.items()
    }
    figures = {
        "ratio_to_original": rate["ours"] / rate["original"],
        # The original runs one candidate after the other: its rate does not depend on how many.
        "ratio_to_original_8": rate["ours-8"] / rate["original"],
        "ratio_to_batched": rate["ours"] / rate["batched"],
        "ratio_of_scalar_to_ours": rate["scalar"] / rate["ours"],
        "memory_ratio": added["ours"] / added["original"],
        "memory_ratio_with_base": sides["ours"]["peak_rss_gb"] / sides["original"]["peak_rss_gb"],
        "max_score_difference": difference,
    }
    rows = [
        {"side": name, **{key: value for key, value in side.items() if key != "scores"}}
        for name, side in sides.items()
    ]
    show(rows, options.json, figures)


if __name__ == "__main__":
    main()
