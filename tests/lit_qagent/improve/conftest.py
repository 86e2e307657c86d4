from pathlib import Path

import pytest
import yaml

from lit_qagent.improve.loop import RoundStage
from lit_qagent.improve.spec import (
    Improve,
    LoopBudget,
    RoundTasks,
    StageConfigs,
    ValidationTasks,
)

SCRIPT = Path(__file__).parent / "scripted_command.py"
AGENTS = {"q_guided": {"selector": "Q"}, "random_of_n": {"selector": "R"}}
WORLD = {
    "class_path": "lit_qagent.environments.toy.ToyWorld",
    "init_args": {"splits": {"train": 14, "valid": 12, "test": 1}},
}


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Improve:
    """A loop whose commands are scripted."""
    monkeypatch.setattr(
        RoundStage,
        "arguments",
        property(lambda self: [str(SCRIPT), self.name, str(self.config), *self.options]),
    )
    configs = {
        "collect": {"environment": WORLD, "search": {"num_iterations": 4}, "seed": 5},
        "pairs": {"rule": "paper"},
        "fit": {"model": {"backbone": {"name": "tiny"}}, "data": {"init_args": {}}},
        "predict": {"data": {"init_args": {"environment": WORLD, "agents": AGENTS}}},
    }
    for name, config in configs.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    paths = {name: tmp_path / f"{name}.yaml" for name in configs}
    return Improve(
        folder=tmp_path / "loop",
        configs=StageConfigs(**paths),
        tasks=RoundTasks(per_round=4, first_task=2),
        validation=ValidationTasks(num_tasks=12),
        budget=LoopBudget(rounds=3),
    )
