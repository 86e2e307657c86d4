"""The configs of the paper's runs: complete, consistent, with the paper's settings, and usable."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.cli import LightningCLI

from data_collection.cli import make_parser
from data_collection.rules import RULES
from lit_qagent.cli import QAgentParser
from lit_qagent.command_line import load_yaml
from lit_qagent.core.records import Message
from lit_qagent.environments.hotpotqa import HotPotQA
from lit_qagent.environments.hotpotqa.examples import EXAMPLES
from lit_qagent.environments.webshop import WebShopFiles
from lit_qagent.evaluation.tasks import EpisodeDataModule
from lit_qagent.models.export import describe, read_checkpoint, save_checkpoint
from lit_qagent.policies.chat import load_renderer
from lit_qagent.training.module import StepDPO
from tests.data_folder import data_file
from tests.pair_folder import make_pairs, write_pairs
from tests.tiny_model import save_tiny_model
from tests.tiny_q_model import tiny_q_model, tiny_spec

FOLDER = Path(__file__).parents[2] / "configs" / "paper"
TEMPLATE = FOLDER / "phi-1_5_chat_template.jinja"
WORLDS = ("hotpotqa", "webshop")
AGENTS = ("phi3_mini", "llama31_8b", "gpt4o_mini", "gpt4_turbo")
# METHOD: what differs between the two worlds.
SETTINGS: dict[str, dict[str, Any]] = {
    "hotpotqa": {"steps": 7, "examples": 3, "tokens": 128, "cut": -1.0, "beta": 0.05},
    "webshop": {"steps": 10, "examples": 1, "tokens": 256, "cut": -0.5, "beta": 0.1},
}
TOY = {"class_path": "lit_qagent.environments.toy.ToyWorld"}

pytestmark = pytest.mark.integration  # importing lightning, peft and mlflow takes seconds


def read(name: str) -> dict[str, Any]:
    values: dict[str, Any] = load_yaml((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


def write(values: dict[str, Any], folder: Path) -> Path:
    import yaml

    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def base_model(folder: Path, **changes: Any) -> Path:  # noqa: ANN401
    """Return a tiny model with the chat template that is shipped for phi-1_5."""
    template = TEMPLATE.read_text(encoding="utf-8")
    return save_tiny_model(folder / "model", chat_template=template, **changes)


def test_there_is_a_config_for_every_step_world_and_agent() -> None:
    wanted = {f"{world}_{step}" for world in WORLDS for step in ("collect", "pairs", "fit")}
    wanted |= {f"{world}_predict_{agent}" for world in WORLDS for agent in AGENTS}
    assert {path.stem for path in FOLDER.glob("*.yaml")} == wanted
    for path in FOLDER.glob("*.yaml"):
        step = path.stem.split("_")[1]
        module = "lit_qagent" if step in ("fit", "predict") else "data_collection"
        command = f"#   python -m {module} {step} --config configs/paper/{path.name}\n"
        assert command in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("world", WORLDS)
def test_collecting_is_set_as_in_the_paper(world: str, tmp_path: Path) -> None:
    parser, wanted = make_parser(), SETTINGS[world]
    config = FOLDER / f"{world}_collect.yaml"
    parser.parse_args(["collect", "--config", str(config)])  # every name and type is right
    values = read(f"{world}_collect") | {"environment": TOY}
    options = parser.instantiate(
        parser.parse_args(["collect", "--config", str(write(values, tmp_path))])
    ).collect
    search, sampling, prompt = options.search, options.sampling, options.prompt
    assert (search.num_iterations, search.num_candidates, search.eta) == (30, 5, 2.0)
    assert (search.truncation_reward, search.variant) == (wanted["cut"], "uct")
    assert (sampling.temperature, sampling.top_p) == (1.0, 0.9)
    assert sampling.max_tokens == wanted["tokens"]
    assert (prompt.think, prompt.num_examples) == (True, wanted["examples"])
    assert options.policy.model == "microsoft/Phi-3-mini-4k-instruct"
    assert options.policy.max_model_len == 4096
    assert read(f"{world}_collect")["environment"]["init_args"]["max_steps"] == wanted["steps"]
    pairs = read(f"{world}_pairs")
    parser.parse_args(["pairs", "--config", str(FOLDER / f"{world}_pairs.yaml")])
    assert pairs["store"] == str(options.store)
    assert pairs["rule"] in RULES


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_training_is_set_as_in_the_paper_and_takes_a_step(world: str, tmp_path: Path) -> None:
    values = read(f"{world}_fit")
    assert values["data"]["init_args"]["pairs"] == read(f"{world}_pairs")["output"]
    model = base_model(tmp_path, kind="phi")
    values["model"]["backbone"] |= {"name": str(model), "dtype": "float32"}
    pairs = write_pairs(tmp_path / "pairs", make_pairs(12))
    values["data"]["init_args"]["pairs"] = str(pairs)
    values["trainer"] |= {"logger": False, "accelerator": "cpu", "enable_progress_bar": False}
    for callback in values["trainer"]["callbacks"]:
        options = callback.get("init_args", {})
        options |= {key: str(tmp_path / key) for key in ("dirpath", "folder") if key in options}
    values["model"]["max_length"] = 1024
    cli = LightningCLI(
        StepDPO,
        None,
        args=["--config", str(write(values, tmp_path))],
        run=False,
        parser_class=QAgentParser,
        save_config_callback=None,
        auto_configure_optimizers=False,
    )
    assert isinstance(cli.trainer, pl.Trainer)
    cli.trainer.fit(cli.model, cli.datamodule)
    assert cli.trainer.global_step == 1
    assert cli.trainer.max_epochs == 1
    batch = values["data"]["init_args"]["batch_size"] * cli.trainer.accumulate_grad_batches
    assert batch == 64
    assert cli.model.q_model.head.beta == SETTINGS[world]["beta"]
    [group] = cli.trainer.optimizers[0].param_groups
    assert group["weight_decay"] == 0.0
    assert group["initial_lr"] == pytest.approx(1e-4)  # the paper's 1e-6, for LoRA
    assert read_checkpoint(tmp_path / "folder").head == "implicit"  # what predict plays with
    assert (tmp_path / "dirpath" / "last.ckpt").is_file()


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize("world", WORLDS)
def test_playing_is_set_as_in_the_paper(world: str, agent: str, tmp_path: Path) -> None:
    values = read(f"{world}_predict_{agent}")
    data, wanted = values["data"]["init_args"], SETTINGS[world]
    collected, fitted = read(f"{world}_collect"), read(f"{world}_fit")
    for key in ("environment", "prompt", "sampling"):
        assert data[key] == collected[key]
    exported = fitted["trainer"]["callbacks"][-1]["init_args"]["folder"]
    assert values["model"]["checkpoint"] == exported
    assert values["model"]["backbone"]["name"] == fitted["model"]["backbone"]["name"]

    size = values["model"]["scorer_cache_gb"]
    # Keys and values of phi-1_5 in bfloat16, with and without the adapter: mean prompts of WebShop
    # (docs/paper_runs.md) with five candidates for all episodes in flight, beside the rest.
    token_gb = 2 * (2 * 24 * 2048 * 2) / 1e9
    share = data["policy"]["init_args"].get("engine_args", {}).get("gpu_memory_utilization", 0.0)
    assert size >= data["play"]["concurrency"] * (1560 + 5 * 60) * token_gb
    assert size + 85 * share + 3 < 80

    cli = build_predict(values, tmp_path)

    assert cli.model._scorer_cache_gb == size
    module = cli.datamodule
    assert isinstance(module, EpisodeDataModule)
    evaluation = module.evaluation
    assert evaluation.tasks.num_tasks == 100
    assert evaluation.agents["q_guided"].num_candidates == 5
    assert evaluation.agents["random_of_n"].num_candidates == 5
    assert evaluation.controls == ["random_of_n", "plain"]
    assert evaluation.sampling.max_tokens == wanted["tokens"]
    assert (evaluation.play.prices is not None) == agent.startswith("gpt")


def build_predict(values: dict[str, Any], folder: Path) -> LightningCLI:
    """Build what a predict config describes, with a tiny Q-model and the toy world."""
    model = base_model(folder)
    q_model = tiny_q_model(tiny_spec(model))
    save_checkpoint(
        folder / "checkpoint", q_model, describe(q_model, max_length=1024, lineage={}, metrics={})
    )
    values["model"] = {
        "checkpoint": str(folder / "checkpoint"),
        "backbone": {"name": str(model), "dtype": "float32"},
        "scorer_cache_gb": values["model"]["scorer_cache_gb"],
    }
    values["data"]["init_args"]["environment"] = TOY
    values["trainer"] |= {"logger": False, "accelerator": "cpu"}
    del values["return_predictions"]
    return LightningCLI(
        StepDPO,
        None,
        args=["--config", str(write(values, folder))],
        run=False,
        parser_class=QAgentParser,
        save_config_callback=None,
        auto_configure_optimizers=False,
    )


@pytest.mark.parametrize("world", WORLDS)
def test_the_world_of_every_predict_config_has_the_right_options(world: str) -> None:
    parser = QAgentParser()
    parser.add_subclass_arguments(EpisodeDataModule, "data")
    for agent in AGENTS:
        data = read(f"{world}_predict_{agent}")["data"]
        parser.parse_object({"data": data})  # as written: the files need not be there


def test_hotpotqa_has_the_tasks_and_examples_that_are_asked_for() -> None:
    options = read("hotpotqa_collect")["environment"]["init_args"]
    files = {split: str(data_file(f"hotpotqa/{split}.json")) for split in ("train", "dev")}
    world = HotPotQA(**options | {"data": files})
    assert len(world.examples()) == len(EXAMPLES) == 3
    assert len(world.tasks("dev")) >= 200


def test_webshop_has_the_goals_and_the_example_that_are_asked_for() -> None:
    options = read("webshop_collect")["environment"]["init_args"]
    files = {
        "products": data_file("webshop/items_shuffle_1000.json"),
        "attributes": data_file("webshop/items_ins_v2_1000.json"),
    }
    # What the full shop alone has: human goals, and the splits of them.
    small = {"goals": "synthetic", "splits": "official", "overlap": "refuse", "human": None}
    world = WebShopFiles(**options | files | small)
    assert len(world.examples()) >= read("webshop_collect")["prompt"]["num_examples"]
    assert len(world.tasks("test")) == 500
    assert world.max_steps == 10


def test_the_chat_template_for_a_base_model_keeps_histories_prefixes(tmp_path: Path) -> None:
    chat = load_renderer(str(base_model(tmp_path)))
    asked = [Message(role="system", content="Rules."), Message(role="user", content="Go.")]
    answered = [*asked, Message(role="assistant", content="pick[red]")]
    more = [*answered, Message(role="user", content="Well.")]
    prompt = chat.prompt_ids(asked)
    assert str(chat.tokenizer.decode(prompt)).endswith("User:\nGo.\n\nAssistant:\n")
    whole = prompt + chat.action_ids("pick[red]")
    assert chat.prompt_ids(more)[: len(whole)] == whole
