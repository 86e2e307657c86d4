"""Slow, independent definitions that the packages' own code must agree with."""

import itertools
import math
import string
from pathlib import Path

import torch

# --- HotPotQA's official evaluation -------------------------------------------------------------


def reference_normal_words(answer: str) -> list[str]:
    """Return the words compared: lower case, ASCII punctuation gone, articles gone.

    An article is a whole run of letters and digits, wherever it stands.
    """
    letters = [letter for letter in answer.lower() if letter not in string.punctuation]
    kept = []
    for _, run in itertools.groupby(letters, key=str.isalnum):
        text = "".join(run)
        kept.append(" " if text in ("a", "an", "the") else text)
    return "".join(kept).split()


def reference_exact_match(answer: str, gold: str) -> float:
    return 1.0 if reference_normal_words(answer) == reference_normal_words(gold) else 0.0


def reference_f1(answer: str, gold: str) -> float:
    given, wanted = reference_normal_words(answer), reference_normal_words(gold)
    for closed in (["yes"], ["no"], ["noanswer"]):
        if (given == closed) != (wanted == closed):
            return 0.0
    left = list(wanted)
    shared = 0
    for word in given:
        if word in left:
            left.remove(word)
            shared += 1
    # 2PR / (P + R) with P = shared / given and R = shared / wanted.
    return 2 * shared / (len(given) + len(wanted)) if shared else 0.0


# --- Log-probabilities of actions ---------------------------------------------------------------


def reference_action_log_prob(
    model: torch.nn.Module,
    prompt_ids: list[int],
    action_ids: list[int],
    observed: tuple[tuple[int, int], ...] = (),
) -> torch.Tensor:
    """Run one whole sequence, normalise every logit, add up the action's own.

    Of an episode that is what the agent says, without the spans that it observes.
    """
    skipped = {place for start, end in observed for place in range(start, end)}
    logits = model(input_ids=torch.tensor([prompt_ids + action_ids])).logits.float()
    log_probs = torch.log_softmax(logits[0], dim=-1)
    first = len(prompt_ids)
    picked = [
        log_probs[first + i - 1, token] for i, token in enumerate(action_ids) if i not in skipped
    ]
    return torch.stack(picked).sum()


# --- Prefix sharing -----------------------------------------------------------------------------


def reference_prefixes(sequences: list[list[int]]) -> set[tuple[int, ...]]:
    """Every distinct prefix: as many as tokens have to be computed."""
    return {tuple(sequence[: end + 1]) for sequence in sequences for end in range(len(sequence))}


def choice_probabilities(
    model: Path, prompt_ids: list[int], choice_ids: list[list[int]], *, temperature: float
) -> list[float]:
    """Probability of each choice if every token is drawn among those that lead to a choice."""
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    found = []
    for ids in choice_ids:
        with torch.no_grad():
            logits = network(torch.tensor([prompt_ids + ids])).logits[0].float()
        log_probability = 0.0
        for place, token in enumerate(ids):
            open_tokens = sorted(
                {other[place] for other in choice_ids if other[:place] == ids[:place]}
            )
            row = logits[len(prompt_ids) + place - 1] / temperature
            log_probability += float(row[token] - torch.logsumexp(row[open_tokens], 0))
        found.append(math.exp(log_probability))
    return found
