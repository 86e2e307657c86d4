"""Candidates scored per CPU second along one episode: ours, the original's way, batched sequences.

All three compute beta * (log pi - log pi_ref) of the same candidates with SmolLM2-135M in float32:

ours      keys and values kept over the episode, candidates as branches, one copy of the weights
original  two whole models, one full forward pass per candidate, logits of all positions
batched   one copy of the weights, the candidates of a step as a batch of full sequences

The slow sides score a part of the candidates (said in the row) and count what they scored. One thread
and CPU seconds, so that what else the machine does hardly matters.
"""

import argparse
import json
import random
import time
from typing import Any

from common import add_json_option, peak_rss_gb, report, run_side

from lit_qagent.core.records import History, Message
from lit_qagent.core.seeds import derive_seed

NUM_STEPS = 7
BETA = 0.1
WORDS = (
    "river museum second northern writer album station bridge founded painter opened village "
    "between league island former court school award library director valley season century"
).split()


def make_episode(num_candidates: int) -> list[tuple[History, list[str]]]:
    """One history and its candidates per step; sizes as in ReAct on HotPotQA."""
    rng = random.Random(derive_seed("bench_scoring"))

    def text(num_words: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(num_words))

    head = (
        Message(role="system", content=f"Answer the question in steps. {text(330)}"),
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
            Message(role="user", content=f"Observation: {text(80)}."),
        )
    return steps


def load_q_model() -> Any:
    import torch

    from lit_qagent.models.backbone import build_backbone
    from lit_qagent.models.q_heads import ImplicitQHead
    from lit_qagent.models.q_model import QModel
    from lit_qagent.models.specs import BackboneSpec, LoraSpec

    torch.manual_seed(0)
    spec = BackboneSpec(name="SmolLM2-135M-Instruct", dtype="float32")
    q_model = QModel(build_backbone(spec, LoraSpec(rank=16, alpha=32)), ImplicitQHead(beta=BETA))
    for name, parameter in q_model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    return q_model


def make_renderer() -> Any:
    from lit_qagent.data.rendering import SequenceRenderer
    from lit_qagent.policies.chat import load_renderer
    from lit_qagent.policies.pretrained import resolve_model

    return SequenceRenderer(load_renderer(resolve_model("SmolLM2-135M-Instruct")), 8192)


def run_ours(num_candidates: int) -> dict[str, Any]:
    import asyncio

    from lit_qagent.models.scorer import QScorer

    scorer = QScorer(load_q_model(), make_renderer())
    episode = make_episode(num_candidates)

    async def play() -> list[list[float]]:
        return [await scorer.score(history, candidates) for history, candidates in episode]

    began = time.process_time()
    scores = asyncio.run(play())
    return result(scores, num_candidates * NUM_STEPS, time.process_time() - began)


def run_original(num_candidates: int) -> dict[str, Any]:
    """Score the first candidate of each step."""
    import torch

    policy, reference = load_q_model().backbone, load_q_model().backbone
    with reference.reference(), torch.inference_mode():
        renderer = make_renderer()
        rendered = [renderer.render(h, c[:1])[0] for h, c in make_episode(num_candidates)]
        began = time.process_time()
        scores = [
            [BETA * (full_log_prob(policy.model, *s) - full_log_prob(reference.model, *s))]
            for s in rendered
        ]
        return result(scores, NUM_STEPS, time.process_time() - began)


def full_log_prob(model: Any, prompt_ids: list[int], action_ids: list[int]) -> float:
    import torch

    logits = model(input_ids=torch.tensor([prompt_ids + action_ids])).logits.float()
    log_probs = torch.log_softmax(logits, dim=-1)[0, len(prompt_ids) - 1 : -1]
    return float(log_probs.gather(-1, torch.tensor(action_ids)[:, None]).sum())


def run_batched(num_candidates: int) -> dict[str, Any]:
    """Score all candidates of the first, the middle and the last step."""
    import torch

    from lit_qagent.data.batch import collate_sequences

    q_model, renderer = load_q_model(), make_renderer()
    episode = make_episode(num_candidates)
    steps = [renderer.render(*episode[index]) for index in (0, NUM_STEPS // 2, NUM_STEPS - 1)]
    scores = []
    began = time.process_time()
    with torch.inference_mode():
        for sequences in steps:
            scores.append(q_model(collate_sequences([[s] for s in sequences])).tolist())
    return result(scores, num_candidates * len(steps), time.process_time() - began)


def result(scores: list[list[float]], num_scored: int, seconds: float) -> dict[str, Any]:
    return {
        "scores": scores,
        "candidates_per_cpu_second": num_scored / seconds,
        "scored": num_scored,
        "cpu_seconds": seconds,
        "peak_rss_gb": peak_rss_gb(),
    }


SIDES = {"ours": run_ours, "original": run_original, "batched": run_batched}


def compare(num_candidates: int) -> tuple[dict[str, dict[str, Any]], float]:
    """Run all sides; returns them with the largest difference of a score."""
    sides = {name: run_side(__file__, name, "-n", str(num_candidates)) for name in SIDES}
    ours = sides["ours"]["scores"]
    pairs = [(row[0], mine[0]) for row, mine in zip(sides["original"]["scores"], ours, strict=True)]
    for row, index in zip(sides["batched"]["scores"], (0, NUM_STEPS // 2, -1), strict=True):
        pairs += zip(row, ours[index], strict=True)
    return sides, max(abs(theirs - mine) for theirs, mine in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=SIDES, help="run one side only (used by this script)")
    parser.add_argument("-n", type=int, default=5, help="candidates per step, with --side")
    add_json_option(parser)
    options = parser.parse_args()
    if options.side:
        import torch

        torch.set_num_threads(1)
        print(json.dumps(SIDES[options.side](options.n)))
        return
    five, difference_5 = compare(5)
    eight, difference_8 = compare(8)
    rate = "candidates_per_cpu_second"
    figures = {
        "ratio_to_original": five["ours"][rate] / five["original"][rate],
        "ratio_to_original_8": eight["ours"][rate] / eight["original"][rate],
        "ratio_to_batched": five["ours"][rate] / five["batched"][rate],
        "memory_ratio": five["ours"]["peak_rss_gb"] / five["original"]["peak_rss_gb"],
        "max_score_difference": max(difference_5, difference_8),
        "rows": [
            {"side": name, "n": n, **{k: v for k, v in side.items() if k != "scores"}}
            for n, sides in ((5, five), (8, eight))
            for name, side in sides.items()
        ],
    }
    report("scoring", figures, options.json)


if __name__ == "__main__":
    main()
