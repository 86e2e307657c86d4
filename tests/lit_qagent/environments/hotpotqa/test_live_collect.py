"""From a config to trees: questions from a file, pages from a wiki, answers from a chat server."""

import json
from pathlib import Path

import pytest
import yaml

from data_collection.cli import main
from tests.fault_server import completion, fault_server
from tests.lit_qagent.environments.hotpotqa.question_files import make_record, write_questions
from tests.lit_qagent.environments.hotpotqa.wiki_server import Fault, wiki_server


@pytest.mark.integration
def test_a_search_of_live_pages_with_reprompts(tmp_path: Path) -> None:
    records = [make_record(number, context=[]) for number in range(3)]
    data = {"all": write_questions(tmp_path / "q.json", records)}
    (tmp_path / "train.txt").write_text("2 0")
    opened = completion("Thought: a town.\nAction: Search[Vardholm]", "I would rather jump.")
    solved = completion("Thought: it says so.\nAction: Finish[Ines Brandt]")
    with wiki_server([Fault(status=503)]) as wiki, fault_server([opened, solved]) as chat:
        pages = {"contact": "me@example.org", "cache": str(tmp_path / "wiki"), "api_url": wiki.url}
        chat_model = {"model": "m", "base_url": chat.base_url}
        config = {
            "environment": {
                "class_path": "lit_qagent.environments.hotpotqa.HotPotQA",
                "init_args": {
                    "data": data,
                    "index_lists": {"train": {"of": "all", "path": str(tmp_path / "train.txt")}},
                    "manifest": str(tmp_path / "splits.json"),
                    "pages": {
                        "class_path": "lit_qagent.environments.hotpotqa.wikipedia.Wikipedia",
                        "init_args": pages,
                    },
                },
            },
            "policy": {
                "class_path": "lit_qagent.policies.reprompt.RepromptPolicy",
                "init_args": {
                    "policy": {
                        "class_path": "lit_qagent.policies.openai.OpenAIPolicy",
                        "init_args": chat_model,
                    }
                },
            },
            "search": {"num_iterations": 2, "num_candidates": 2},
            "prompt": {"think": True, "num_examples": 3, "constrain": True},
            "num_tasks": 1,
            "store": str(tmp_path / "trees"),
        }
        (tmp_path / "collect.yaml").write_text(yaml.safe_dump(config))
        assert main(["collect", "--config", str(tmp_path / "collect.yaml")]) == 0
        assert [request["titles"] for request in wiki.requests] == ["Vardholm", "Vardholm"]
    summary = json.loads((tmp_path / "trees" / "summary.json").read_text())
    assert (summary["trees"], summary["successes"], summary["failures"]) == (1, 1, 0)
    assert summary["requests"] == len(chat.requests)
    assert summary["invalid_rate"] == 0
    reprompt = chat.requests[1]["messages"][-2:]
    assert reprompt[0] == {"role": "assistant", "content": "I would rather jump."}
    assert "regular expression" in reprompt[1]["content"]
    manifest = json.loads((tmp_path / "trees" / "manifest.json").read_text())
    assert manifest["policy"]["policy"] == "reprompt"
    assert manifest["environment"]["pages"] == "wikipedia"
    assert manifest["environment"]["splits"]["train"]["num_questions"] == 2
    assert "example.org" not in json.dumps(manifest)
