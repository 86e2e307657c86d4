"""Pairs that bench_training.py trains on where no file is given, and a tokenizer for them."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TRUNK_TOKENS, ACTION_TOKENS = 435, 38  # of real agents: instruction and question; one action
_WORDS = """
river mountain village record station bridge author painter island garden museum castle before after
between under near which where when number early later first second largest smallest northern
southern history people family company school music letter paper stone
""".split()  # noqa: SIM905 (a list of them fills a screen)
_TEMPLATE = (
    "{% for message in messages %}<|im_start|> {{ message['role'] }} {{ message['content'] }} "
    "<|im_end|> {% endfor %}{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def generate(folder: Path, depths: Sequence[int]) -> Path:
    """Write step-level pairs of the shape that agents give: instruction, question, steps.

    A trajectory of each depth; all have the same instruction.
    """
    words = random.Random(0)
    instruction = f"Answer the question step by step. {_text(words, 330)}"
    rows = []
    for depth in depths:
        question = f"{instruction}\nQuestion: {_text(words, 14)}?"
        actions = [
            [f"Thought: {_text(words, 18)}.\nAction: Search[{_text(words, 3)}]" for _ in range(2)]
            for _ in range(depth)
        ]
        seen = [f"Observation: {_text(words, 85)}." for _ in range(depth)]
        rows += _trajectory(question, actions, seen)
    return _write(folder / "pairs.jsonl", rows)


def generate_by_tokens(folder: Path, num_tokens: int, num_trajectories: int) -> Path:
    """Write trajectories of so many tokens, shared ones counted once, for `save_tokenizer`.

    Ten steps, twenty beyond 4096 tokens; what the observations have to make up for is long there,
    as web pages are.
    """
    depth = 10 if num_tokens <= 4096 else 20
    each = (num_tokens - TRUNK_TOKENS - depth * 2 * ACTION_TOKENS) // max(1, depth - 1)
    if each < 8:
        raise SystemExit(f"--trajectory-tokens must be at least 1300, got {num_tokens}")
    words = random.Random(0)
    rows = []
    for _ in range(num_trajectories):
        actions = [[_text(words, ACTION_TOKENS - 1) for _ in range(2)] for _ in range(depth)]
        seen = [_text(words, each - 5) for _ in range(depth)]
        rows += _trajectory(_text(words, TRUNK_TOKENS - 5), actions, seen)
    return _write(folder / f"trajectory_{num_tokens}.jsonl", rows)


def short_pairs(folder: Path) -> Path:
    """Write independent pairs with short prompts: the case where sharing brings least."""
    words = random.Random(1)
    rows = []
    for _ in range(12):
        ask, *both = (_text(words, n) for n in (12, 30, 30))
        rows += _trajectory(ask, [both], [""])
    return _write(folder / "short.jsonl", rows)


def save_tokenizer(folder: Path) -> Path:
    """Write a tokenizer with one token a word, so that lengths are exact and nothing is fetched."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    known = [*special, "user", "assistant", "system", "x", *_WORDS]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(known)}, special[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=special[0],
        pad_token=special[0],
        eos_token=special[2],
        additional_special_tokens=[special[1]],
    )
    fast.chat_template = _TEMPLATE
    fast.save_pretrained(folder)
    return folder


def by_trajectory(rows: list[dict[str, Any]]) -> list[list[int]]:
    """Group pairs by their first message, which holds the task."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(json.dumps(row["prompt"][0]), []).append(index)
    return list(groups.values())


def timed_rows(rows: list[dict[str, Any]], *, forest: int, batches: int, least: int) -> list[int]:
    """Return the first rows, enough for so many batches of ``forest`` trajectories.

    A trajectory counts as five rows, as real ones have; of two batches at least there are all
    rows, as far as the pairs go.
    """
    first = by_trajectory(rows)[: 2 * forest]
    end = max(least, 5 * forest * batches, 1 + max(i for group in first for i in group))
    return list(range(min(len(rows), end)))


def _trajectory(first: str, actions: list[list[str]], seen: list[str]) -> list[dict[str, Any]]:
    """Return a pair for each step; the better action is the one that was taken."""
    rows = []
    chat = [{"role": "user", "content": first}]
    for both, observation in zip(actions, seen, strict=True):
        chosen, rejected = ([{"role": "assistant", "content": text}] for text in both)
        rows.append({"prompt": list(chat), "chosen": chosen, "rejected": rejected})
        chat += [*chosen, {"role": "user", "content": observation}]
    return rows


def _text(words: random.Random, num_words: int) -> str:
    return " ".join(words.choice(_WORDS) for _ in range(num_words))


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
