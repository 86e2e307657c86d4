"""The official files, where the tests find them, and what was recorded from the original."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lit_qagent.environments.webshop import WebShopFiles
from tests.data_folder import data_file


def recorded(variable: str, name: str) -> Any:  # noqa: ANN401 (JSON)
    """Read a recording from the path in an environment variable, else from the data folder."""
    given = os.environ.get(variable)
    path = Path(given) if given else data_file(f"webshop/{name}")
    if not path.exists():
        pytest.skip(f"no data: {path} does not exist; set {variable} to the file")
    return json.loads(path.read_text(encoding="utf-8"))


def reward_vectors() -> list[dict[str, Any]]:
    cases = recorded("QAGENT_WEBSHOP_VECTORS", "reward_vectors.json")["cases"]
    return list(cases)


def text_episodes() -> list[dict[str, Any]]:
    episodes = recorded("QAGENT_WEBSHOP_EPISODES", "episodes_text.json")["episodes"]
    return list(episodes)


def official_paths() -> dict[str, str]:
    names = {
        "products": "items_shuffle_1000.json",
        "attributes": "items_ins_v2_1000.json",
        "human": "items_human_ins.json",
    }
    return {key: str(data_file(f"webshop/{name}")) for key, name in names.items()}


@cache
def make_official(**settings: Any) -> WebShopFiles:  # noqa: ANN401 (any setting)
    """Return a world on the 1,000 products; equal settings share one."""
    return WebShopFiles(**{**official_paths(), "goals": "synthetic", **settings})
