"""Every agent with a real (tiny) LLM as policy and a real Q-model: no part is a fake."""

from pathlib import Path

import pytest

from data_collection.agent import SearchTrials
from data_collection.spec import SearchSpec
from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.agents.selection import (
    AdaptiveQSelector,
    FirstSelector,
    MostLikelySelector,
    OracleSelector,
    QSelector,
)
from lit_qagent.agents.trials import BestOfTrials, Reflexion
from lit_qagent.core.records import Sampling
from lit_qagent.data.rendering import SequenceRenderer
from lit_qagent.evaluation.report import write_report
from lit_qagent.evaluation.shard import EpisodeShard
from lit_qagent.evaluation.specs import AgentSpec
from lit_qagent.models.scorer import QScorer
from lit_qagent.policies.chat import load_renderer
from lit_qagent.policies.transformers import TransformersPolicy
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_q_model, tiny_spec
from tests.toy_players import make_evaluation

AGENTS = {
    "q_guided": AgentSpec(selector=QSelector(), num_candidates=3),
    "most_likely": AgentSpec(selector=MostLikelySelector(), num_candidates=3),
    "q_adaptive": AgentSpec(selector=AdaptiveQSelector(margin=0.5), num_candidates=4),
    "q_reflexion": AgentSpec(
        selector=QSelector(), num_candidates=3, trials=Reflexion(num_trials=2, note_tokens=8)
    ),
    "best_of_2": AgentSpec(selector=FirstSelector(), trials=BestOfTrials(2)),
    "oracle": AgentSpec(selector=OracleSelector(), num_candidates=3),
    "lats": AgentSpec(
        selector=FirstSelector(),
        trials=SearchTrials(SearchSpec(variant="lats", num_iterations=2, num_candidates=3)),
    ),
    "q_search": AgentSpec(
        selector=FirstSelector(),
        trials=SearchTrials(SearchSpec(variant="q_only", num_iterations=4, num_candidates=3)),
    ),
}


@pytest.mark.integration
def test_every_agent_plays_with_a_real_model_and_is_reported(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    scorer = QScorer(
        tiny_q_model(tiny_spec(model)), SequenceRenderer(load_renderer(str(model)), max_length=1024)
    )
    evaluation = make_evaluation(
        tmp_path / "out",
        policy=TransformersPolicy(str(model), dtype="float32", device="cpu"),
        agents=AGENTS,
        sampling=Sampling(temperature=1.5, max_tokens=24),
        prompt=PromptSpec(think=False, num_examples=0, constrain=True),
        tasks={"num_tasks": 3, "seeds": [0]},
    )

    EpisodeShard(evaluation).play(scorer, {})

    report = write_report(tmp_path / "out")
    assert report["episodes"] == {"planned": 24, "finished": 24, "failed": 0, "not_played": 0}
    cost = {name: row["cost"] for name, row in report["agents"].items()}
    # Three decisions; what is legal is always valid.
    assert [cost[name]["requests"] for name in ("q_guided", "most_likely")] == [3, 3]
    assert 3 <= cost["q_adaptive"]["requests"] <= 9
    # Two trials of three decisions and a note between them, unless the first one succeeds.
    assert 3 <= cost["q_reflexion"]["requests"] <= 7
    assert cost["oracle"]["environment_steps"] > 3
    # Each iteration expands once; LATS also scores, rolls out and reflects.
    assert cost["lats"]["requests"] > cost["q_search"]["requests"] > 1
    assert report["agents"]["q_search"]["uses"] == "copies of the world"
    assert all(row["invalid_rate"] == 0 for row in report["agents"].values())
    # All that drew what the oracle drew are measured at the root; best_of_2 sampled one only.
    assert report["regret_by_depth"]["q_guided"][0]["decisions"] == 3
