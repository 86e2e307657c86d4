"""The data of ``predict``: held-out tasks and the agents that play them."""

from collections.abc import Iterator

import torch
from lightning.pytorch import LightningDataModule

from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.core.records import Sampling
from lit_qagent.environments.base import Environment
from lit_qagent.evaluation.shard import EpisodeShard
from lit_qagent.evaluation.specs import AgentSpec, Evaluation, HeldOutSpec, PlaySpec
from lit_qagent.policies.base import Policy


class ShardLoader:
    """Hands one shard over, unchanged; Lightning takes any iterable with a length."""

    def __init__(self, shard: EpisodeShard) -> None:
        self._shard = shard

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[EpisodeShard]:
        return iter([self._shard])


class EpisodeDataModule(LightningDataModule):
    """Gives each predict process its share of the episodes as one batch.

    One batch, not many: within it a sliding window of episodes keeps the policy busy, while
    batches would each wait for their slowest episode.

    Args:
        environment: The world.
        policy: Who proposes actions, for all agents.
        agents: Name -> agent, such as plain, random_of_n and q_guided.
        tasks: The held-out tasks and the seeds.
        sampling: How the agents sample, unless an agent says otherwise.
        play: Where to write, what to compare.
        prompt: How the world is shown.
    """

    def __init__(
        self,
        environment: Environment,
        policy: Policy,
        agents: dict[str, AgentSpec],
        tasks: HeldOutSpec,
        sampling: Sampling,
        play: PlaySpec,
        prompt: PromptSpec = PromptSpec(),  # noqa: B008 (frozen; shown by --help)
    ) -> None:
        super().__init__()
        self.evaluation = Evaluation(
            environment=environment,
            policy=policy,
            agents=agents,
            tasks=tasks,
            sampling=sampling,
            prompt=prompt,
            play=play,
        )

    def predict_dataloader(self) -> ShardLoader:
        """Return this process's share; under several processes the tasks are dealt out."""
        trainer = self.trainer
        return ShardLoader(
            EpisodeShard(
                self.evaluation,
                rank=trainer.global_rank if trainer else 0,
                world_size=trainer.world_size if trainer else 1,
                barrier=trainer.strategy.barrier if trainer else None,
            )
        )

    def transfer_batch_to_device(
        self, batch: EpisodeShard, device: torch.device, dataloader_idx: int
    ) -> EpisodeShard:
        """Leave the shard alone: it holds no tensors."""
        return batch
