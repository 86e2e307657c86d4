"""`auto` is the type that the machine computes fast, and is written down as what it stands for."""

import asyncio
from pathlib import Path

import pytest
import torch

from lit_qagent.core.records import Sampling
from lit_qagent.models.specs import BackboneSpec
from lit_qagent.policies.dtypes import resolve_dtype
from lit_qagent.policies.transformers import TransformersPolicy
from lit_qagent.policies.vllm import VLLMPolicy
from tests.tiny_model import save_tiny_model
from tests.vllm_asking import chat

NATIVE, EMULATED = {"avx512_bf16": True}, {"avx2": True, "avx512_bf16": False, "amx_bf16": False}


def machine(monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], *, gpu: bool = False) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)


@pytest.mark.parametrize(
    ("found", "gpu", "expected"),
    [
        (NATIVE, False, "bfloat16"),
        ({"amx_bf16": True}, False, "bfloat16"),
        ({"bf16": True}, False, "bfloat16"),  # ARM
        (EMULATED, False, "float32"),
        (EMULATED, True, "bfloat16"),
    ],
)
def test_auto_is_bfloat16_where_it_is_not_emulated(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], gpu: bool, expected: str
) -> None:
    machine(monkeypatch, found, gpu=gpu)
    assert resolve_dtype("auto") == expected
    # A setting that holds `auto` would let results of two types mix.
    assert BackboneSpec(dtype="auto").dtype == BackboneSpec().dtype == expected
    assert VLLMPolicy("any").settings()["dtype"] == expected
    assert TransformersPolicy("any").settings()["dtype"] == expected


def test_what_is_named_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, EMULATED)
    assert resolve_dtype("bfloat16") == "bfloat16"
    assert BackboneSpec(dtype="bfloat16").dtype == "bfloat16"
    assert VLLMPolicy("any", dtype="float16").settings()["dtype"] == "float16"


def test_a_model_is_loaded_in_the_type_that_auto_stands_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(monkeypatch, EMULATED)
    policy = TransformersPolicy(str(save_tiny_model(tmp_path / "tiny")), max_model_len=128)
    loaded: list[torch.dtype | None] = []

    def note(self: torch.nn.Module, device: str) -> torch.nn.Module:
        loaded.append(next(self.parameters()).dtype)
        return self

    monkeypatch.setattr(torch.nn.Module, "to", note)
    asyncio.run(policy.propose(chat("Hello"), 1, Sampling(max_tokens=1)))
    assert loaded == [torch.float32]
