"""Writes the folder of a pair set: parquet for programs, a card for people, JSON for lineage."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from data_collection.audit import audit_pairs
from data_collection.audit_page import audit_page
from lit_qagent.core.errors import StoreError
from lit_qagent.core.pairs import CARD_FILE, PAIR_FILE, PairCard, PreferencePair

README_FILE = "README.md"
AUDIT_FILE = "audit.html"


def write_pair_folder(
    folder: Path,
    pairs: Sequence[PreferencePair],
    card: PairCard,
    *,
    notes: Mapping[str, object],
) -> PairCard:
    """Write all files or none; writing the same pairs again changes nothing.

    Args:
        folder: New, empty, or with the same content.
        pairs: At least one.
        card: Its hash is filled in here.
        notes: Facts for the audit.

    Returns:
        The card with the hash of the parquet file.

    Raises:
        StoreError: The folder holds something else.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / PAIR_FILE).parent.mkdir(parents=True)
    _write_parquet(pairs, partial / PAIR_FILE)
    content = (partial / PAIR_FILE).read_bytes()
    card = replace(card, pairs_hash=hashlib.sha256(content).hexdigest())
    (partial / CARD_FILE).write_text(json.dumps(asdict(card), indent=2) + "\n", encoding="utf-8")
    (partial / README_FILE).write_text(_readme(pairs, card, notes), encoding="utf-8")
    (partial / AUDIT_FILE).write_text(audit_page(pairs, card, notes), encoding="utf-8")
    if folder.exists() and any(folder.iterdir()):
        is_same = _hashes(folder) == _hashes(partial)
        shutil.rmtree(partial)
        if not is_same:
            raise StoreError(
                f"{folder} already holds other files; nothing was changed. "
                "Give another --output, or remove that folder"
            )
        return card
    if folder.exists():
        folder.rmdir()
    partial.replace(folder)
    return card


def _write_parquet(pairs: Sequence[PreferencePair], path: Path) -> None:
    # datasets takes seconds to import; only this function needs it.
    import datasets

    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        datasets.Dataset.from_list([asdict(pair) for pair in pairs]).to_parquet(path)
    finally:
        if not shown:
            datasets.enable_progress_bars()


def _hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _readme(pairs: Sequence[PreferencePair], card: PairCard, notes: Mapping[str, object]) -> str:
    lineage = {
        "environment": card.environment,
        "policy": card.policy,
        "search": card.search,
        "prompt": card.prompt,
        "rule": card.rule,
        "seed": card.seed,
    }
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: {PAIR_FILE}
---

# Step-level preference pairs: {card.environment["name"]}

{card.num_pairs} pairs from {card.num_trees} search trees by the rule `{card.rule["name"]}`.
Each row holds a history (`prompt`) and two actions after it, the better one in `chosen`, with
their estimated values (`q_chosen`, `q_rejected`): the conversational preference format that
TRL's `DPOTrainer` reads.

```python
datasets.load_dataset("path/to/this/folder", split="train")
```

## Audit

{audit_pairs(pairs, card.removed, notes)}

Plots: `{AUDIT_FILE}`.

## Where it comes from

```json
{json.dumps(lineage, indent=2)}
```

SHA-256 of `{PAIR_FILE}`: `{card.pairs_hash}`. All searched tasks are listed in `{CARD_FILE}`;
evaluate on none of them.
"""
