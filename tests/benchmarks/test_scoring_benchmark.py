"""The scoring benchmark: all of its sides on a model of two layers, in this process."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from lit_qagent.data.rendering import TokenSequence
from tests.tiny_model import save_tiny_model

_BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
_PEAKS = {"base": 1.0, "ours": 2.0, "original": 5.0, "batched": 3.0, "scalar": 2.0}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark on a tiny model with short texts, its sides without processes of their own."""
    monkeypatch.syspath_prepend(str(_BENCHMARKS))
    spec = importlib.util.spec_from_file_location("bench_scoring", _BENCHMARKS / "bench_scoring.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run_side(script: str, side: str, *arguments: str) -> dict[str, Any]:
        # Processes of their own have peaks of their own; one process has one.
        return {**module.SIDES[side](int(arguments[1])), "peak_rss_gb": _PEAKS[side]}

    monkeypatch.setattr(module, "run_side", run_side)
    monkeypatch.setattr(module, "MODEL", str(save_tiny_model(tmp_path / "model")))
    monkeypatch.setattr(module, "HEAD_WORDS", 10)
    monkeypatch.setattr(module, "OBSERVATION_WORDS", 4)
    return module


def test_all_sides_score_the_same_candidates_alike_and_count_what_they_scored(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["bench_scoring.py", "--json", str(path)])

    bench.main()

    found = json.loads(path.read_text())
    rows = {row["side"]: row for row in found["rows"]}
    scored = {name: row["scored"] for name, row in rows.items() if name != "base"}
    assert scored == {"ours": 35, "original": 3, "batched": 5, "scalar": 35, "ours-8": 56}
    for name in scored:
        rate = rows[name]["scored"] / rows[name]["cpu_seconds"]
        assert rows[name]["candidates_per_cpu_second"] == pytest.approx(rate)
    assert found["max_score_difference"] < 1e-4
    assert found["memory_ratio"] == pytest.approx((2 - 1) / (5 - 1))
    assert found["memory_ratio_with_base"] == pytest.approx(2 / 5)
    rates = {name: row["candidates_per_cpu_second"] for name, row in rows.items() if name in scored}
    assert found["ratio_to_batched"] == pytest.approx(rates["ours"] / rates["batched"])
    assert found["ratio_to_original_8"] == pytest.approx(rates["ours-8"] / rates["original"])


def test_the_scores_that_are_compared_are_not_all_zero(bench: ModuleType) -> None:
    scores = bench.run_ours(2)["scores"]

    assert [len(row) for row in scores] == [2] * bench.NUM_STEPS
    assert len({round(q, 6) for row in scores for q in row}) == 2 * bench.NUM_STEPS


def test_the_original_way_pays_for_two_plain_models_without_an_adapter(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[torch.nn.Module] = []
    log_prob = bench.full_log_prob

    def note(model: torch.nn.Module, sequence: TokenSequence) -> float:
        models.append(model)
        return float(log_prob(model, sequence))

    monkeypatch.setattr(bench, "full_log_prob", note)

    bench.run_original(1)

    policy, reference = models[:2]
    assert policy is not reference
    for model in (policy, reference):
        assert not [name for name, _ in model.named_modules() if "lora" in name]
    differing = [
        name
        for (name, one), other in zip(
            policy.named_parameters(), reference.parameters(), strict=True
        )
        if not torch.equal(one, other)
    ]
    assert any("q_proj" in name for name in differing)  # the adapter is in the weights
