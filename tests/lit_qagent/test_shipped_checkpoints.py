"""The checkpoints of the repository: whole, small, fit for their configs, and of some use."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
import yaml

from lit_qagent.core.errors import CheckpointError
from lit_qagent.core.records import History, Message
from lit_qagent.models.checkpoint_scorer import CheckpointScorer
from lit_qagent.models.export import load_q_model, read_checkpoint
from lit_qagent.models.fingerprint import BASE_KEY, check_base, fingerprint

ROOT = Path(__file__).parents[2]
KITCHEN = (
    "You are in the kitchen. In one part of the room you see a stove. There is also an oven. In "
    "another part of the room you see a fridge that is open, that has a raw pork chop and some "
    "lettuce in it. In one part of the room you see a counter that has a banana, and a cookbook "
    "on it."
)
RECIPE = """Gather all following ingredients and follow the directions to prepare this tasty meal.

Ingredients:
  pork chop
  banana

Directions:
  slice the pork chop
  fry the pork chop
  chop the banana
  prepare meal"""
WALL_ART = "canvas wall art with solid wood with color: red fox, and size: 8x10 inch"
RESULTS = """1. Canvas Wall Art Wooden Frame Ready to Hang..., $19.98
2. Sencillez Canvas Wall Art Abstract..., $59.99"""
OPTIONS = """color: red fox, blue bird
size: 8x10 inch, 12x16 inch, 16x24 inch"""


@pytest.mark.parametrize("world", ["webshop", "cookingworld"])
def test_a_config_plays_with_its_checkpoint(world: str) -> None:
    config = yaml.safe_load((ROOT / "configs" / f"predict_{world}.yaml").read_text("utf-8"))
    card = read_checkpoint(ROOT / "checkpoints" / world)

    assert config["model"]["checkpoint"] == f"checkpoints/{world}"
    assert Path(card.backbone.name).name == config["model"]["backbone"]["name"]


def test_the_shop_is_the_one_that_the_quickstart_plays_in() -> None:
    config = yaml.safe_load((ROOT / "configs" / "predict_quickstart.yaml").read_text("utf-8"))
    environment = read_checkpoint(ROOT / "checkpoints" / "shop").lineage["environment"]

    options = config["data"]["init_args"]["environment"]["init_args"]
    assert environment["splits"] == options["splits"]
    assert environment["catalog"].items() >= options["catalog"].items()
    assert environment["pages"].items() >= options["pages"].items()
    assert environment["max_steps"] == options["max_steps"]


@pytest.mark.parametrize("world", ["shop", "webshop", "cookingworld"])
def test_a_checkpoint_is_small_and_says_what_it_was_trained_on(world: str) -> None:
    folder = ROOT / "checkpoints" / world

    card = read_checkpoint(folder)

    assert card.lineage["task_ids"]
    assert card.lineage[BASE_KEY] in (folder / "README.md").read_text("utf-8")
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 6_000_000


@pytest.mark.integration
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("world", ["shop", "webshop", "cookingworld"])
def test_a_checkpoint_knows_its_base_model_in_any_type(
    world: str, dtype: Literal["float32", "bfloat16"]
) -> None:
    folder = ROOT / "checkpoints" / world
    card = read_checkpoint(folder)

    q_model = load_q_model(folder, replace(card.backbone, dtype=dtype))

    lineage = card.lineage
    assert fingerprint(q_model.backbone) == lineage[BASE_KEY]
    with torch.no_grad():
        next(q_model.backbone.language_model.parameters())[0] += 1  # of the embeddings
    with pytest.raises(CheckpointError, match="has other weights"):
        check_base(q_model.backbone, lineage)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("world", "rules", "said", "better", "worse"),
    [
        (
            "webshop",
            "Buy the product that fits the instruction: open it, choose the options asked for, "
            "then buy.",
            [
                f"Instruction: Find me {WALL_ART}, and price lower than 60.00 dollars",
                f"search[{WALL_ART}]",
                RESULTS,
                "click[1]",
                OPTIONS,
            ],
            "click[8x10 inch]",
            "click[12x16 inch]",
        ),
        (
            "cookingworld",
            "You play a text game.",
            [KITCHEN, "read cookbook", RECIPE],
            "take pork chop",
            "take lettuce",
        ),
    ],
)
def test_a_checkpoint_tells_a_good_action_from_a_bad_one(
    world: str, rules: str, said: list[str], better: str, worse: str
) -> None:
    one_command = f"{rules}\nIn each turn answer with one command and nothing else."
    first, *rest = said
    history = History(
        head=(Message(role="system", content=one_command), Message(role="user", content=first)),
        turns=tuple(
            Message(role="user" if turn % 2 else "assistant", content=text)
            for turn, text in enumerate(rest)
        ),
    )

    scorer = CheckpointScorer(ROOT / "checkpoints" / world)
    good, bad = asyncio.run(scorer.score(history, [better, worse]))

    assert good > bad
