"""Pairs without labels, another tokenizer, another base model: each is an error, none is silent."""

import asyncio
import shutil
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tokenizers import Tokenizer
from tokenizers.normalizers import Replace

from lit_qagent.core.errors import CheckpointError, DataError
from lit_qagent.data.batch import PairTokens, collate_pairs
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.data.pairs import pair_history, read_pairs
from lit_qagent.data.rendered import render_pair
from lit_qagent.data.rendering import SequenceRenderer, TokenSequence
from lit_qagent.data.tokenizers import check_tokenizer
from lit_qagent.models.checkpoint_scorer import CheckpointScorer
from lit_qagent.policies.chat import load_renderer
from lit_qagent.training.callbacks import ExportCheckpoint
from lit_qagent.training.module import StepDPO
from tests.lit_qagent.training.parts import make_module, make_trainer
from tests.pair_folder import make_pair, make_pairs, write_pairs
from tests.tiny_model import CHAT_TEMPLATE, save_tiny_model
from tests.tiny_q_model import tiny_spec


@pytest.fixture(scope="module")
def other_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model under the same name, whose chat template says something else."""
    folder = tmp_path_factory.mktemp("other") / "tiny-model"
    template = CHAT_TEMPLATE.replace("assistant\n{% endif", "assistant: {% endif")
    assert template != CHAT_TEMPLATE
    return save_tiny_model(folder, chat_template=template)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """What a training leaves: last.ckpt and a shareable checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    callbacks = [ModelCheckpoint(folder / "fit", "last"), ExportCheckpoint(folder / "export")]
    fit(make_module(model), folder, callbacks)
    return folder


def fit(
    module: StepDPO, folder: Path, callbacks: list[pl.Callback], ckpt: Path | None = None
) -> None:
    trainer = make_trainer(*callbacks, max_epochs=1)
    pairs = write_pairs(folder / "pairs", make_pairs(8))
    trainer.fit(
        module, PreferenceDataModule(pairs, batch_size=4), ckpt_path=ckpt, weights_only=True
    )


def test_an_action_with_nothing_to_score_is_refused_by_the_pairs_name() -> None:
    said, unsaid = TokenSequence([1, 2], [3]), TokenSequence([1, 2], [])
    good = PairTokens(said, TokenSequence([1, 2], [4]), 1.0, 0.0, 0, name="task a")
    masked = PairTokens(said, unsaid, 1.0, 0.0, 0, name="task b")

    with pytest.raises(DataError, match=r"1 of 2 pairs have an action without a token .*: task b;"):
        collate_pairs([good, masked], "none")


def renderer_that_reads(model: Path, folder: Path, written: str, read: str) -> SequenceRenderer:
    """Return the renderer of a copy of the model whose tokenizer takes one text for another."""
    shutil.copytree(model, folder)
    file = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.normalizer = Replace(written, read)
    tokenizer.save(str(file))
    return SequenceRenderer(load_renderer(str(folder)), 2048)


def test_equal_actions_are_refused_by_their_row(tmp_path: Path) -> None:
    same = [{"role": "assistant", "content": "open[red]"}]
    folder = write_pairs(tmp_path, [make_pair(0, 0), make_pair(1, 0, chosen=same, rejected=same)])

    with pytest.raises(DataError, match=r"row 1 has equal chosen and rejected actions"):
        read_pairs(folder)


def test_actions_of_equal_tokens_are_refused(model: Path, tmp_path: Path) -> None:
    renderer = renderer_that_reads(model, tmp_path / "blind", "open[blue]", "open[red]")
    pair = make_pair(0, 0, rejected=[{"role": "assistant", "content": "open[blue]"}])

    with pytest.raises(DataError, match=r"chosen and rejected of task 'task-0' .* same tokens"):
        render_pair(pair, renderer)


def test_an_action_that_the_tokenizer_drops_is_refused(model: Path, tmp_path: Path) -> None:
    renderer = renderer_that_reads(model, tmp_path / "deaf", "open[blue]", "")
    pair = make_pair(0, 0, rejected=[{"role": "assistant", "content": "open[blue]"}])

    with pytest.raises(
        DataError, match=r"the rejected action of task 'task-0' at depth 0 .* masked to nothing"
    ):
        render_pair(pair, renderer)


def test_a_fingerprint_follows_template_vocabulary_and_splitting_only(
    model: Path, other_template: Path, tmp_path: Path
) -> None:
    fingerprint = load_renderer(str(model)).fingerprint
    assert load_renderer(str(save_tiny_model(tmp_path / "again"))).fingerprint == fingerprint
    assert load_renderer(str(other_template)).fingerprint != fingerprint
    chat = load_renderer(str(model))
    chat.tokenizer.add_tokens(["Thought:"])
    assert chat.fingerprint != fingerprint


def test_training_writes_the_tokenizers_fingerprint(model: Path, trained: Path) -> None:
    saved = torch.load(trained / "fit" / "last.ckpt", weights_only=True)
    assert saved["lineage"]["tokenizer"] == load_renderer(str(model)).fingerprint
    check_tokenizer(load_renderer(str(model)), saved["lineage"])
    check_tokenizer(load_renderer(str(model)), {})  # of an older version


def test_a_checkpoint_of_another_tokenizer_is_refused(
    other_template: Path, trained: Path, tmp_path: Path
) -> None:
    message = r"trained with another tokenizer or chat template .* restore the tokenizer's files"
    with pytest.raises(CheckpointError, match=message):
        fit(make_module(other_template, checkpoint=trained / "export"), tmp_path, [])
    with pytest.raises(CheckpointError, match=message):
        fit(make_module(other_template), tmp_path, [], trained / "fit" / "last.ckpt")
    module = make_module(other_template, checkpoint=trained / "export")
    module.configure_model()
    with pytest.raises(CheckpointError, match=message):
        module.scorer()
    scorer = CheckpointScorer(trained / "export", tiny_spec(other_template))
    with pytest.raises(CheckpointError, match=message):
        asyncio.run(scorer.score(pair_history(make_pair(0, 0)), ["look"]))


def test_a_ckpt_of_another_base_model_is_refused_where_shapes_fit(
    trained: Path, tmp_path: Path
) -> None:
    other = save_tiny_model(tmp_path / "other-model")

    with pytest.raises(CheckpointError, match=r"was trained on 'tiny-model', model.backbone.name"):
        fit(make_module(other), tmp_path, [], trained / "fit" / "last.ckpt")
