"""The converted small model itself."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lit_qagent.core.records import Message
from lit_qagent.policies.chat import load_renderer

pytestmark = pytest.mark.integration


def test_it_is_a_plain_bf16_llama_that_answers(smollm2: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(smollm2)
    assert model.dtype == torch.bfloat16
    assert getattr(model.config, "quantization_config", None) is None
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    renderer = load_renderer(str(smollm2))
    ids = renderer.prompt_ids(
        (
            Message(role="system", content="You answer in one short sentence."),
            Message(role="user", content="What is the capital of France?"),
        )
    )
    output = cast(Any, model).generate(torch.tensor([ids]), do_sample=False, max_new_tokens=16)
    answer = output[0, len(ids) :].tolist()
    assert renderer.tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"


def test_its_chat_ends_turns_with_its_end_token(smollm2: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer.eos_token == "<|im_end|>"
    renderer = load_renderer(str(smollm2))
    assert tokenizer.decode(renderer.action_ids("click[a]")) == "click[a]<|im_end|>\n"
    text = "Ünïcode 12345, tabs\tand  blanks"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
