import re
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentError
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI

from lit_qagent.agents.selection import AdaptiveQSelector
from lit_qagent.agents.trials import Reflexion
from lit_qagent.core.errors import ConfigError
from lit_qagent.environments.toy import ToyWorld
from lit_qagent.evaluation.cost import Prices
from lit_qagent.evaluation.shard import EpisodeShard
from lit_qagent.evaluation.tasks import EpisodeDataModule
from tests.toy_players import WordPolicy, WordScorer

CONFIG = """
data:
  class_path: lit_qagent.evaluation.tasks.EpisodeDataModule
  init_args:
    environment: {class_path: lit_qagent.environments.toy.ToyWorld, init_args: {max_steps: 4}}
    policy: {class_path: tests.toy_players.WordPolicy, init_args: {temperament: wild}}
    agents:
      plain:
        selector: lit_qagent.agents.selection.FirstSelector
      random_of_n:
        selector: lit_qagent.agents.selection.RandomSelector
        num_candidates: 5
        sampling: {temperature: 0.5}
      q_guided:
        selector: lit_qagent.agents.selection.QSelector
        num_candidates: 5
      q_adaptive:
        selector:
          class_path: lit_qagent.agents.selection.AdaptiveQSelector
          init_args: {first: 3, margin: 0.2}
        num_candidates: 8
        trials: {class_path: lit_qagent.agents.trials.Reflexion, init_args: {num_trials: 2}}
    tasks: {num_tasks: 3, seeds: [0, 1]}
    sampling: {temperature: 0.7, stop: ["\\n"]}
    prompt: {think: false, num_examples: 0}
    play: {output: OUTPUT, concurrency: 2, prices: {prompt: 0.15, generated: 0.6}}
"""


class EmptyModule(LightningModule):
    pass


def parse(folder: Path, *options: str, config: Path | None = None) -> EpisodeDataModule:
    """Build the data module as the command line does."""
    path = config or folder / "predict.yaml"
    if config is None:
        path.write_text(CONFIG.replace("OUTPUT", str(folder / "out")))
    cli = LightningCLI(
        EmptyModule,
        None,
        args=["--config", str(path), *options],
        run=False,
        save_config_callback=None,
        seed_everything_default=False,
        auto_configure_optimizers=False,
        trainer_defaults={"logger": False, "accelerator": "cpu"},
        parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
    )
    assert isinstance(cli.datamodule, EpisodeDataModule)
    return cli.datamodule


def test_a_yaml_file_names_every_part(tmp_path: Path) -> None:
    evaluation = parse(tmp_path).evaluation

    assert isinstance(evaluation.environment, ToyWorld)
    assert evaluation.environment.max_steps == 4
    assert isinstance(evaluation.policy, WordPolicy)
    assert evaluation.policy.temperament == "wild"
    assert [spec.num_candidates for spec in evaluation.agents.values()] == [1, 5, 5, 8]
    adaptive = evaluation.agents["q_adaptive"]
    assert isinstance(adaptive.selector, AdaptiveQSelector)
    assert (adaptive.selector.first, adaptive.selector.margin) == (3, 0.2)
    assert isinstance(adaptive.trials, Reflexion)
    assert evaluation.trials == {"q_adaptive": adaptive.trials}
    assert evaluation.play.prices == Prices(prompt=0.15, generated=0.6)
    own = evaluation.agents["random_of_n"].sampling
    assert own is not None
    assert own.temperature == 0.5
    assert evaluation.sampling.temperature == 0.7
    assert evaluation.tasks.seeds == [0, 1]
    assert evaluation.play.output == tmp_path / "out"
    assert evaluation.controls == ["plain", "random_of_n", "q_adaptive"]


def test_the_agents_of_the_readme_can_be_built(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    given = next(
        yaml.safe_load(block)
        for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
        if "oracle_of_n" in block
    )
    config = yaml.safe_load(CONFIG)
    config["data"]["init_args"] |= given
    (tmp_path / "readme.yaml").write_text(yaml.safe_dump(config))

    evaluation = parse(tmp_path, config=tmp_path / "readme.yaml").evaluation

    assert {name: spec.uses for name, spec in evaluation.agents.items() if spec.uses} == {
        "q_reflexion": "the success of earlier trials",
        "best_of_5": "the true reward",
        "oracle_of_n": "the true reward",
    }
    assert len(evaluation.agents) == 9
    assert len(evaluation.build_agents(WordScorer())) == 9


def test_the_command_line_changes_one_value_of_one_agent(tmp_path: Path) -> None:
    options = ("--data.agents.q_guided.num_candidates", "7", "--data.tasks.num_tasks", "2")

    evaluation = parse(tmp_path, *options).evaluation

    assert [spec.num_candidates for spec in evaluation.agents.values()] == [1, 5, 7, 8]
    assert evaluation.tasks.num_tasks == 2


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--data.agents.q_guided.num_candidats", "7"), "num_candidats"),
        (("--data.tasks.num_taks", "7"), "num_taks"),
        (("--data.play.concurrency", "many"), "concurrency"),
    ],
)
def test_a_mistyped_option_is_refused(
    tmp_path: Path, option: tuple[str, str], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        parse(tmp_path, *option)


def test_an_unknown_treatment_is_refused(tmp_path: Path) -> None:
    # The parser tries every type of the union that `data` may have and wraps what they raise.
    with pytest.raises(ValueError, match=r"play\.treatment: no agent 'best'; there are") as caught:
        parse(tmp_path, "--data.play.treatment", "best")

    assert isinstance(caught.value.__cause__, ConfigError)


def test_the_loader_hands_one_shard_over_unchanged(tmp_path: Path) -> None:
    data = parse(tmp_path)
    loader = data.predict_dataloader()

    [shard] = loader
    assert len(loader) == 1
    assert isinstance(shard, EpisodeShard)
    assert (shard.rank, shard.world_size) == (0, 1)
    assert data.transfer_batch_to_device(shard, torch.device("cpu"), 0) is shard
