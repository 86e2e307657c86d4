"""FlexAttention, the attention of GPUs: its mask, its numbers, how often it compiles.

Most of it runs on a CPU: forward as it is, backward with the check for a device left out, and
graphs are counted before a compiler for kernels would see them. Tests marked gpu need a GPU.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.attention import flex_attention as torch_flex
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.functional import scaled_dot_product_attention

from lit_qagent.data.batch import TokenBatch, collate_pairs, collate_sequences
from lit_qagent.data.rendered import render_pair
from lit_qagent.data.rendering import SequenceRenderer, TokenSequence
from lit_qagent.models import flex, sharing
from lit_qagent.models.attention import (
    BRANCH_ATTENTION,
    branch_attention,
    branch_mask,
    branches_of,
)
from lit_qagent.models.flex import block_mask, flex_obstacle
from lit_qagent.models.q_model import QModel
from lit_qagent.policies.chat import load_renderer
from tests.pair_folder import make_pair
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_q_model, tiny_spec

# Torch looks at it while it traces, and hides the warning unless warnings are errors.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method:DeprecationWarning"),  # inductor
]
CPU = torch.device("cpu")
PAIRS = [make_pair(0, 0), make_pair(0, 1), make_pair(0, 3), make_pair(1, 2)]


def rows_of(num_rows: int, num_tokens: int) -> TokenBatch:
    """Return rows of three branches on a trunk of 130 tokens, and another root; one is padded."""
    trunk = list(range(1000, 1130))
    branches = [TokenSequence(trunk, [first, 1]) for first in (5, 6, 7)]
    rows = [
        [*branches, TokenSequence(list(range(2000, 2000 + num_tokens)), [1])],
        *[branches for _ in range(num_rows - 1)],
    ]
    return collate_sequences(rows)


def random_inputs(
    batch: TokenBatch, *, heads: tuple[int, int] = (6, 2), width: int = 32
) -> list[Tensor]:
    """Return query, key and value as a decoder gives them: heads are an inner axis in memory."""
    generator = torch.Generator().manual_seed(0)
    rows, tokens = batch.token_ids.shape
    return [
        torch.randn(rows, tokens, number, width, generator=generator).transpose(1, 2)
        for number in (heads[0], heads[1], heads[1])
    ]


def dense(batch: TokenBatch, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    mask = branch_mask(batch.visible_until)
    return scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)


def attend(batch: TokenBatch, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    mask = block_mask(batch.visible_until)
    return branch_attention(nn.Identity(), query, key, value, None, branches=mask)[0].transpose(
        1, 2
    )


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Compile as on a GPU, but run the graphs as they are and count them, by function."""
    found: Counter[str] = Counter()
    made: dict[str, Any] = {}

    def compiled(function: Callable[..., Any]) -> Any:  # noqa: ANN401
        name = function.__name__

        def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
            found[name] += 1
            return graph.forward

        if name not in made:
            made[name] = torch.compile(  # type: ignore[call-overload] # as in flex.py
                function, dynamic=True, fullgraph=True, recompile_limit=32, backend=backend
            )
        return made[name]

    torch._dynamo.reset()
    monkeypatch.setattr(flex, "compiled", compiled)
    # Only the kernels for CPUs have no backward pass; the graph itself has one.
    monkeypatch.setattr(torch_flex, "_validate_device", lambda *_: None)
    return found


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=4), min_size=1, max_size=3),
    st.integers(0, 250),
)
def test_the_block_mask_equals_torchs_own(lengths: list[list[int]], shared: int) -> None:
    trunk = list(range(5000, 5000 + shared))
    rows = [
        [TokenSequence([*trunk, 100 + i], list(range(6000, 6000 + n))) for i, n in enumerate(row)]
        for row in lengths
    ]
    until = collate_sequences(rows).visible_until
    num_rows, width = until.shape
    ours = block_mask(until)

    theirs = create_block_mask(ours.mask_mod, num_rows, None, width, width, device="cpu")

    assert ours.shape == theirs.shape
    for kind in ("kv", "full_kv", "q", "full_q"):
        counts, expected = (getattr(m, f"{kind}_num_blocks") for m in (ours, theirs))
        assert torch.equal(counts, expected)
        indices = [getattr(m, f"{kind}_indices") for m in (ours, theirs)]
        used = torch.arange(indices[0].shape[-1]) < counts[..., None]
        assert torch.equal(indices[0][used], indices[1][used])


def test_the_rule_of_the_block_mask_is_the_dense_mask() -> None:
    batch = rows_of(2, 40)
    width = batch.token_ids.shape[1]

    found = block_mask(batch.visible_until)

    q, k = torch.meshgrid(torch.arange(width), torch.arange(width), indexing="ij")
    for row, mask in enumerate(branch_mask(batch.visible_until)):
        cells = found.mask_mod(torch.tensor(row), torch.tensor(0), q, k)
        assert torch.equal(cells, mask[0])


def test_blocks_that_no_token_sees_are_skipped() -> None:
    # Two roots of 256 tokens: neither sees the other, and no block sees a later one.
    sequences = [TokenSequence(list(range(first, first + 255)), [1]) for first in (1000, 2000)]
    batch = collate_sequences([sequences])

    blocks = block_mask(batch.visible_until).to_dense()[0, 0]

    assert blocks.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize("heads", [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize("width", [64, 80, 96])
def test_output_and_gradients_equal_the_dense_mask(
    graphs: Counter[str], heads: tuple[int, int], width: int
) -> None:
    batch = rows_of(2, 150)
    tensors = [t.requires_grad_() for t in random_inputs(batch, heads=heads, width=width)]
    real = batch.is_token[:, None, :, None]
    weights = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(1)) * real
    expected = dense(batch, *tensors)

    found = attend(batch, *tensors)

    torch.testing.assert_close(found * real, expected * real, atol=1e-5, rtol=0)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), tensors) for x in (found, expected))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=3e-5, rtol=1e-5)


def test_no_batch_compiles_again(graphs: Counter[str]) -> None:
    sizes = [(1, 200), (1, 333), (1, 777), (1, 520), (1, 900), (1, 131)]
    with torch.no_grad():
        for num_rows, num_tokens in sizes:
            batch = rows_of(num_rows, num_tokens)
            tensors = random_inputs(batch)
            torch.testing.assert_close(
                attend(batch, *tensors), dense(batch, *tensors), atol=1e-5, rtol=0
            )

    assert graphs == {"flex_attention": 1}
    with torch.no_grad():
        for num_rows, num_tokens in [(2, 200), (3, 333), (5, 210)]:  # several rows: once more
            attend(rows_of(num_rows, num_tokens), *random_inputs(rows_of(num_rows, num_tokens)))
    assert graphs == {"flex_attention": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny-model", initializer_range=0.1)


def use_flex_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = lambda batch: block_mask(batch.visible_until)  # noqa: E731
    for module in ("q_model", "sharing"):
        monkeypatch.setattr(f"lit_qagent.models.{module}.branches_of", masks)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_a_model_trains_by_it_as_by_branches(
    model: Path, graphs: Counter[str], monkeypatch: pytest.MonkeyPatch, checkpointing: bool
) -> None:
    renderer = SequenceRenderer(load_renderer(str(model)), 2048)
    pairs = [tokens for pair in PAIRS if (tokens := render_pair(pair, renderer)) is not None]
    spec = tiny_spec(model, gradient_checkpointing=checkpointing)

    def learn(q_model: QModel, num: int) -> tuple[Tensor, list[Tensor]]:
        batch = collate_pairs(pairs[:num], "batch").tokens
        q_model.reference_log_probs(batch)
        found = q_model.action_log_probs(batch)
        found.sum().backward()  # type: ignore[no-untyped-call]
        weights = [p for p in q_model.parameters() if p.requires_grad]
        gradients = [p.grad.clone() for p in weights if p.grad is not None]
        q_model.zero_grad()
        return found.detach(), gradients

    plain = tiny_q_model(spec)
    expected = [learn(plain, num) for num in (4, 3, 2)]
    use_flex_on_cpu(monkeypatch)
    q_model = tiny_q_model(spec)
    counts = []
    for num, (values, gradients) in zip((4, 3, 2), expected, strict=True):
        found, ours = learn(q_model, num)
        torch.testing.assert_close(found, values, atol=1e-4, rtol=1e-6)
        for mine, other in zip(ours, gradients, strict=True):
            scale = float(other.abs().max()) or 1.0
            torch.testing.assert_close(mine / scale, other / scale, atol=1e-5, rtol=1e-5)
        counts.append(graphs.total())

    # With and without gradient, in the short row of the probe and in longer ones; then no more.
    assert counts[0] == counts[-1] <= 4


def test_where_flex_is_missing_is_said() -> None:
    assert "not on mps" in str(flex_obstacle(torch.device("mps")))
    assert sharing.ways_to_try(BRANCH_ATTENTION, CPU) == ("branches", "mask")
    assert sharing.ways_to_try("sdpa", CPU) == ("mask",)
    assert sharing.ways_to_try("eager", CPU) == ("mask",)


def test_without_triton_a_dense_mask_gives_the_same_numbers_and_is_said(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batch = collate_pairs(rendered(model), "batch").tokens
    expected = tiny_q_model(tiny_spec(model)).action_log_probs(batch)
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: False)
    ways = sharing.ways_to_try(BRANCH_ATTENTION, torch.device("cuda"))
    monkeypatch.setattr(sharing, "ways_to_try", lambda *_: ways)
    q_model = tiny_q_model(tiny_spec(model))

    assert q_model.backbone.shares_prefixes(2048)
    assert q_model.backbone.way == "mask"
    torch.testing.assert_close(q_model.action_log_probs(batch), expected, atol=1e-4, rtol=1e-6)
    assert (
        "a dense mask is used instead of attention by branches (Triton is not installed"
        in caplog.text
    )


def test_flex_that_does_not_compile_falls_back_to_the_dense_mask(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(batch: TokenBatch) -> object:
        raise RuntimeError("no kernel for heads of 8")

    batch = collate_pairs(rendered(model), "batch").tokens
    expected = tiny_q_model(tiny_spec(model)).action_log_probs(batch)
    monkeypatch.setattr(sharing, "ways_to_try", lambda *_: ("branches", "mask"))
    monkeypatch.setattr(sharing, "branches_of", broken)
    q_model = tiny_q_model(tiny_spec(model))

    found = q_model.action_log_probs(batch)

    assert q_model.backbone.way == "mask"
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-6)


def test_flex_that_computes_something_else_falls_back_to_the_dense_mask(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def blurred(batch: TokenBatch) -> object:  # every token sees all before it
        return branches_of(batch.changed(position_ids=torch.arange(batch.token_ids.shape[1])[None]))

    batch = collate_pairs(rendered(model), "batch").tokens
    expected = tiny_q_model(tiny_spec(model)).action_log_probs(batch)
    monkeypatch.setattr(sharing, "ways_to_try", lambda *_: ("branches", "mask"))
    monkeypatch.setattr(sharing, "branches_of", blurred)
    q_model = tiny_q_model(tiny_spec(model))

    found = q_model.action_log_probs(batch)

    assert q_model.backbone.way == "mask"
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-6)
    assert (
        "instead of attention by branches (its states are not those of sequences on" in caplog.text
    )


def rendered(model: Path) -> list[Any]:
    renderer = SequenceRenderer(load_renderer(str(model)), 2048)
    return [tokens for pair in PAIRS if (tokens := render_pair(pair, renderer)) is not None]


@pytest.mark.integration
def test_the_compiled_kernel_of_cpus_gives_the_same_numbers() -> None:
    with torch.no_grad():
        for num_rows, num_tokens in [(1, 200), (1, 333)]:
            batch = rows_of(num_rows, num_tokens)
            tensors = random_inputs(batch, width=96)
            torch.testing.assert_close(
                attend(batch, *tensors), dense(batch, *tensors), atol=1e-5, rtol=0
            )


@pytest.mark.gpu
@pytest.mark.parametrize("width", [64, 96, 128])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.bfloat16, 0.05)])
def test_a_gpu_computes_the_same_and_compiles_once_for_all_lengths(
    width: int, dtype: torch.dtype, tolerance: float
) -> None:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    graphs = []
    for num_tokens in (200, 333, 777, 1500, 520):
        batch = rows_of(1, num_tokens).to("cuda")
        tensors = [
            t.to("cuda", dtype).requires_grad_()
            for t in random_inputs(batch.to("cpu"), width=width)
        ]
        weights = torch.randn_like(tensors[0])
        expected, found = dense(batch, *tensors), attend(batch, *tensors)
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
        ours, theirs = (
            torch.autograd.grad((x * weights).sum(), tensors) for x in (found, expected)
        )
        for mine, other in zip(ours, theirs, strict=True):
            scale = float(other.abs().max())
            torch.testing.assert_close(mine / scale, other / scale, atol=tolerance, rtol=tolerance)
        graphs.append(counters["stats"]["unique_graphs"])
    assert graphs[-1] == graphs[0] == 1


@pytest.mark.gpu
def test_a_model_on_a_gpu_trains_as_on_a_cpu(model: Path) -> None:
    batch = collate_pairs(rendered(model), "batch").tokens
    q_model = tiny_q_model(tiny_spec(model))
    expected = q_model.action_log_probs(batch).detach()
    q_model.to("cuda")

    found = q_model.action_log_probs(batch.to("cuda"))

    assert q_model.backbone.way == "branches"
    torch.testing.assert_close(found.detach().cpu(), expected, atol=0.05, rtol=1e-3)
    torch.autograd.backward(found.sum())
    assert all(p.grad is not None for p in q_model.parameters() if p.requires_grad)
