"""One process's share of an evaluation: checks first, then plays and writes as it goes."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lit_qagent.agents.guided import GuidedAgent
from lit_qagent.agents.selection import Scorer
from lit_qagent.core import manifest
from lit_qagent.core.errors import ConfigError
from lit_qagent.evaluation.agreement import (
    AGREEMENT_FILE,
    Agreement,
    measure_agreement,
    read_agreement,
    read_siblings,
    write_agreement,
)
from lit_qagent.evaluation.episodes import (
    TRAJECTORIES_GLOB,
    EpisodeLog,
    PlayedEpisode,
    read_episodes,
)
from lit_qagent.evaluation.lineage import (
    check_overlap,
    check_prompt,
    describe_lineage,
    report_other_world,
)
from lit_qagent.evaluation.play import PlannedEpisode, plan_episodes, play_episodes, run_to_end
from lit_qagent.evaluation.progress import EpisodeProgress
from lit_qagent.evaluation.sessions import SESSIONS_GLOB, Session
from lit_qagent.evaluation.specs import Evaluation

MANIFEST_FILE = "manifest.json"
RESULTS_FOLDER = "Results folder"


class EpisodeShard:
    """The episodes that one process plays: every agent and seed on its share of the tasks.

    Not a dataclass, as Lightning looks into those for tensors to move.

    Args:
        evaluation: What is evaluated.
        rank: Number of this process, from 0.
        world_size: Number of processes.
        barrier: Waits until every process has called it; not needed by one process alone.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        *,
        rank: int = 0,
        world_size: int = 1,
        barrier: Callable[[str], object] | None = None,
    ) -> None:
        self.evaluation = evaluation
        self.rank = rank
        self.world_size = world_size
        self._barrier = barrier

    def play(self, scorer: Scorer | None, lineage: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Play what is not played yet; return every episode of this share as plain values.

        Args:
            scorer: The Q-model, for the agents that need one.
            lineage: Where the Q-model comes from, JSON values; ``task_ids`` holds the tasks it
                was trained on.

        Raises:
            OverlapError: Held-out tasks are among those.
            CheckpointError: The Q-model was trained on prompts of another form.
            ConfigError: An agent needs a Q-model and there is none.
            StoreError: The output folder was made with other settings, is damaged, or another run
                is playing into it.
            KeyboardInterrupt: On Ctrl-C; finished episodes are kept, and how to go on is said.
        """
        tasks = self.evaluation.held_out_tasks()
        check_overlap(tasks, lineage)
        check_prompt(self.evaluation.prompt, lineage)
        report_other_world(self.evaluation.environment.settings(), lineage)
        agents = self.evaluation.build_agents(scorer)
        planned = plan_episodes(
            list(agents), tasks[self.rank :: self.world_size], self.evaluation.tasks.seeds
        )
        with ExitStack() as stack:
            log = self._claim_folder(lineage, stack)
            self._compare_with_search(scorer, lineage)
            self._play_missing(planned, agents, log)
        played = read_episodes(self._folder).episodes
        return [played[one.key].to_dict() for one in planned]

    def _compare_with_search(self, scorer: Scorer | None, lineage: Mapping[str, Any]) -> None:
        """Measure once how far the Q-model agrees with a search, if there is one to agree with."""
        source = self.evaluation.play.siblings
        if source is None or self.rank:
            return
        if scorer is None:
            raise ConfigError("play.siblings needs a Q-model; give a checkpoint to predict")
        siblings = read_siblings(
            source,
            lineage,
            environment=self.evaluation.environment.settings(),
            prompt=self.evaluation.prompt,
        )
        lineage_hash = describe_lineage(lineage)["lineage_hash"]
        identity = {
            "pairs_hash": siblings.pairs_hash,
            "lineage_hash": lineage_hash,
            "other_world": siblings.other_world,
        }
        if identity.items() <= read_agreement(self._folder, lineage_hash).items():
            return
        found: list[Agreement] = []

        async def measure() -> None:
            found.append(await measure_agreement(siblings.sets, scorer))

        run_to_end(measure())
        write_agreement(self._folder, found[0], identity)

    @property
    def _folder(self) -> Path:
        return self.evaluation.play.output

    @property
    def _suffix(self) -> str:
        """Each process appends to files of its own."""
        return f".rank{self.rank}.jsonl" if self.rank else ".jsonl"

    def _claim_folder(self, lineage: Mapping[str, Any], stack: ExitStack) -> EpisodeLog:
        """Open this process's log, and check that the folder belongs to this run.

        The manifest is looked at and written with the log locked, so that no other run is playing
        under it. The first process goes first; the others then find its manifest.
        """
        if self.rank:
            self._wait_for_all()
        self._folder.mkdir(parents=True, exist_ok=True)
        log = stack.enter_context(EpisodeLog(self._folder / f"trajectories{self._suffix}"))
        path, settings = self._folder / MANIFEST_FILE, self.evaluation.settings(lineage)
        if not self.rank:
            self._take_over(path, settings, log)
        manifest.claim(path, settings, RESULTS_FOLDER)
        if not self.rank:
            self._wait_for_all()
        return log

    def _take_over(self, path: Path, settings: Mapping[str, Any], log: EpisodeLog) -> None:
        """Write the manifest anew if nothing was played, or if only prices differ.

        Prices decide what is reported, not what is played. Folders of other commands, such as a
        tree store, are never taken over: their settings name no Q-model.
        """
        if not path.exists():
            return
        old = manifest.read(path, RESULTS_FOLDER)
        if not manifest.differences(old, settings):
            return
        if not manifest.differences(_unpriced(old), _unpriced(settings)):
            manifest.write_json(path, settings)
        elif "q_model" in old and not read_episodes(self._folder).episodes:
            with ExitStack() as others:  # of a run whose first process has died
                for one in set(self._folder.glob(TRAJECTORIES_GLOB)) - {log.path}:
                    others.enter_context(EpisodeLog(one))
                for one in [self._folder / AGREEMENT_FILE, *self._folder.glob(SESSIONS_GLOB)]:
                    one.unlink(missing_ok=True)
                manifest.write_json(path, settings)

    def _wait_for_all(self) -> None:
        if self._barrier is not None:
            self._barrier("results folder")

    def _play_missing(
        self,
        planned: Sequence[PlannedEpisode],
        agents: Mapping[str, GuidedAgent],
        log: EpisodeLog,
    ) -> None:
        """Play the episodes that have no finished record, failed ones again."""
        played = read_episodes(self._folder).episodes
        finished = {key for key, episode in played.items() if episode.failure is None}
        missing = [one for one in planned if one.key not in finished]
        totals = Counter(one.agent for one in missing)
        progress = EpisodeProgress({name: totals[name] for name in agents})
        if log.cut_bytes:
            progress.say(f"Cut an unfinished last line ({log.cut_bytes} bytes) off {log.path}.")
        if len(missing) < len(planned):
            progress.say(
                f"{len(planned) - len(missing)} of {len(planned)} episodes were played before."
            )
        path = self._folder / f"sessions{self._suffix}"
        with Session(path, cut_bytes=log.cut_bytes) as session, progress:
            self._run(missing, agents, progress, [log.append, session.count, progress.count])

    def _run(
        self,
        missing: Sequence[PlannedEpisode],
        agents: Mapping[str, GuidedAgent],
        progress: EpisodeProgress,
        sinks: Sequence[Callable[[PlayedEpisode], None]],
    ) -> None:
        def hand_over(episode: PlayedEpisode) -> None:
            for sink in sinks:
                sink(episode)

        try:
            run_to_end(
                play_episodes(
                    missing,
                    agents,
                    self.evaluation.environment,
                    concurrency=self.evaluation.play.concurrency,
                    on_end=hand_over,
                    trials=self.evaluation.trials,
                )
            )
        except KeyboardInterrupt:
            progress.say(
                f"Stopped. {len(read_episodes(self._folder).episodes)} episodes are kept in "
                f"{self._folder}; the same command plays the rest."
            )
            raise


def _unpriced(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "prices"}
