"""The commands of ``python -m data_collection``: they parse and wire, nothing else."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data_collection.budget import Budget, RunLimits
from data_collection.executors import ClusterFailure, Executor, LocalExecutor, RayExecutor
from data_collection.setup import SearchSetup
from data_collection.spec import SearchSpec
from data_collection.tracking import RunLogger, make_logger
from lit_qagent.agents.prompts import PromptSpec
from lit_qagent.agents.selection import Scorer
from lit_qagent.command_line import Parser, run_main
from lit_qagent.core.errors import DataError, PolicyFailure
from lit_qagent.core.pairs import PairCard
from lit_qagent.core.records import Sampling
from lit_qagent.environments.base import Environment
from lit_qagent.policies.base import Policy

MODULE = "data_collection"


@dataclass(frozen=True, kw_only=True)
class Collect:
    """Search tasks and write the trees to a store.

    Attributes:
        environment: The world, a class such as lit_qagent.environments.toy.ToyWorld.
        policy: Who proposes actions, a class such as lit_qagent.policies.vllm.VLLMPolicy or
            lit_qagent.policies.openai.OpenAIPolicy.
        store: Folder of the tree store; give the same one again to go on.
        search: How to search.
        prompt: How the world is shown.
        sampling: How to sample actions.
        split: Split of the world's tasks, such as train.
        first_task: Where in the split to begin, counted from 0.
        num_tasks: How many tasks; all from first_task on if not given.
        concurrency: Trees in flight at once; auto takes as many as keep the policy's batch full.
        sequences_in_flight: Samples asked for at once, over all trees. If not given, auto takes a
            quarter more than the policy's batch holds, or finds out what pays; a number of trees
            is not limited further.
        seed: Seed of everything that is random.
        scorer: The Q-model, for the variants puct, q_rollout and q_value, such as
            lit_qagent.models.checkpoint_scorer.CheckpointScorer.
        critic: Who criticises, scores and reflects in the expansion critique and the variant
            lats, a policy with its own model and address; the policy itself if not given.
        budget: What a tree and the run may cost at most; nothing is limited by default.
        step_timeout_s: Seconds that one step of the world may take; the branch of one that takes
            longer is cut. Not limited if null.
        outage_patience_s: Seconds to wait for a policy that answers nobody before the run stops.
        retry_failed: Go on with the trees that ended because the policy or the world failed;
            they are left as they are otherwise.
        extend_budget: Go on with the trees that a budget ended; they are left as they are
            otherwise.
        executor: Where searches run: local is this process, ray is RayExecutor with its defaults,
            and a class takes options. The trees, the store and its settings are the same.
        recipe: The values that environment, policy and the like were built from; no option.
        logger: One of Lightning's loggers, for the numbers while it runs. With its MLFlowLogger,
            a collection that is gone on with goes on in the same run.
    """

    environment: Environment
    policy: Policy
    store: Path
    search: SearchSpec = field(default_factory=SearchSpec)
    prompt: PromptSpec = field(default_factory=PromptSpec)
    sampling: Sampling = field(default_factory=Sampling)
    split: str = "train"
    first_task: int = 0
    num_tasks: int | None = None
    concurrency: int | Literal["auto"] = "auto"
    sequences_in_flight: int | None = None
    seed: int = 0
    scorer: Scorer | None = None
    critic: Policy | None = None
    budget: Budget = field(default_factory=Budget)
    step_timeout_s: float | None = 120.0
    outage_patience_s: float = 120.0
    retry_failed: bool = False
    extend_budget: bool = False
    executor: Literal["local", "ray"] | Executor = "local"
    recipe: Mapping[str, Any] | None = None
    logger: RunLogger | None = None

    def run(self) -> int:
        """Collect, and print the summary."""
        from data_collection.collect import choose_tasks, collect
        from data_collection.store import TreeStore

        setup = SearchSetup(
            environment=self.environment,
            policy=self.policy,
            search=self.search,
            prompt=self.prompt,
            sampling=self.sampling,
            seed=self.seed,
            scorer=self.scorer,
            critic=self.critic,
            step_timeout_s=self.step_timeout_s,
            recipe=self.recipe,
        )
        tasks = choose_tasks(setup, self.split, self.first_task, self.num_tasks)
        summary = collect(
            setup,
            tasks,
            TreeStore(self.store),
            concurrency=self.concurrency,
            limits=RunLimits(
                budget=self.budget,
                outage_patience_s=self.outage_patience_s,
                extend_budget=self.extend_budget,
                sequences_in_flight=self.sequences_in_flight,
            ),
            retry_failed=self.retry_failed,
            executor=EXECUTORS[self.executor]()
            if isinstance(self.executor, str)
            else self.executor,
            logger=self.logger,
        )
        sys.stdout.write(f"{self.store}\n{summary.table()}\n")
        if summary.stopped_by is not None:
            sys.stdout.write("The budget of this run is used up; run it again to go on.\n")
        if summary.failures:
            sys.stdout.write("Trees that failed are searched on with --retry_failed true.\n")
        return 0


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Turn the trees of a store into preference pairs.

    Attributes:
        store: Folder of the tree store.
        output: Folder to write; new, or made by the same command.
        rule: How pairs are picked. paper: along the best path, against the worst sibling;
            as_released: best against worst child along it; all_siblings: every two of unequal
            value; adjacent: neighbours in value; trajectory: whole episodes.
        min_margin: Leave out pairs whose chosen value exceeds the rejected one by less; all are
            kept if not given.
        min_visits: Leave out pairs with fewer visits behind either value.
        max_characters: Leave out pairs with a longer action.
        distinct_commands: Leave out pairs whose actions give the world one and the same command.
        valid_chosen: Leave out pairs whose chosen action the world could not carry out.
        evaluation_environment: A world whose tasks will be evaluated on; none may have been
            searched.
        evaluation_split: The split of that world.
        evaluation_ids: A file with the ids of such tasks, one a line.
    """

    store: Path
    output: Path
    rule: Literal["paper", "as_released", "all_siblings", "adjacent", "trajectory"] = "paper"
    min_margin: float | None = None
    min_visits: int | None = None
    max_characters: int | None = None
    distinct_commands: bool = False
    valid_chosen: bool = False
    evaluation_environment: Environment | None = None
    evaluation_split: str = "test"
    evaluation_ids: Path | None = None

    def run(self) -> int:
        """Build and write the pairs, and print their number."""
        from data_collection.filters import PairFilter
        from data_collection.pairs import build_pairs, write_pairs
        from data_collection.store import TreeStore

        pair_set = build_pairs(
            TreeStore(self.store),
            rule=self.rule,
            keep=PairFilter(
                min_margin=self.min_margin,
                min_visits=self.min_visits,
                max_characters=self.max_characters,
                distinct_commands=self.distinct_commands,
                valid_chosen=self.valid_chosen,
            ),
            evaluation_ids=self._evaluation_ids(),
        )
        _say_pairs(self.output, write_pairs(pair_set, self.output))
        return 0

    def _evaluation_ids(self) -> set[str] | None:
        """Return the ids to keep apart from; None if none were named."""
        if self.evaluation_environment is None and self.evaluation_ids is None:
            return None
        ids: set[str] = set()
        if self.evaluation_environment is not None:
            tasks = self.evaluation_environment.tasks(self.evaluation_split)
            ids |= {task.task_id for task in tasks}
        if self.evaluation_ids is not None:
            ids |= _read_ids(self.evaluation_ids)
        return ids


@dataclass(frozen=True, kw_only=True)
class Import:
    """Turn what another program has collected into preference pairs.

    Attributes:
        file: JSON, or one JSON object a line; for trees also a folder with one JSON file per task.
        output: Folder to write; new, or made by the same command.
        form: trees are the nested search trees of the paper's released code, conversations are
            its pairs, whose messages have from and value.
        environment: Name of the world, for the card.
        rule: How pairs are picked from trees, as in the command pairs; as_released makes of the
            original's trees the pairs that its own script makes.
        head_messages: How many messages of a conversation come before the first step taken; the
            original's have 3.
        min_margin: Leave out pairs whose chosen value exceeds the rejected one by less; all are
            kept if not given.
        min_visits: Leave out pairs with fewer visits behind either value; conversations have none.
        max_characters: Leave out pairs with a longer action.
        distinct_commands: Leave out pairs whose actions give the world one and the same command.
        valid_chosen: Leave out pairs whose chosen action the world could not carry out.
        evaluation_ids: A file with the ids of tasks that will be evaluated on, one a line.
    """

    file: Path
    output: Path
    form: Literal["trees", "conversations"]
    environment: str
    rule: Literal["paper", "as_released", "all_siblings", "adjacent", "trajectory"] = "paper"
    head_messages: int = 3
    min_margin: float | None = None
    min_visits: int | None = None
    max_characters: int | None = None
    distinct_commands: bool = False
    valid_chosen: bool = False
    evaluation_ids: Path | None = None

    def run(self) -> int:
        """Read, write the pairs, and print their number."""
        from data_collection.filters import PairFilter
        from data_collection.pairs import Source, import_pairs, write_pairs

        source = Source(
            form=self.form,
            environment=self.environment,
            rule=self.rule,
            head_messages=self.head_messages,
        )
        pair_set = import_pairs(
            self.file,
            source,
            keep=PairFilter(
                min_margin=self.min_margin,
                min_visits=self.min_visits,
                max_characters=self.max_characters,
                distinct_commands=self.distinct_commands,
                valid_chosen=self.valid_chosen,
            ),
            evaluation_ids=_read_ids(self.evaluation_ids) if self.evaluation_ids else None,
        )
        _say_pairs(self.output, write_pairs(pair_set, self.output))
        return 0


@dataclass(frozen=True, kw_only=True)
class View:
    """Write a tree store as one HTML page that needs no network.

    Attributes:
        store: Folder of the tree store; a search may be writing to it.
        output: The page; an older one is replaced.
        pairs: Folder of pairs made of these trees: marks what is chosen and rejected.
        scorer: A Q-model, whose values are shown beside those of the search.
    """

    store: Path
    output: Path
    pairs: Path | None = None
    scorer: Scorer | None = None

    def run(self) -> int:
        """Write the page, and print what it shows."""
        from data_collection.store import TreeStore
        from data_collection.viewer.view import write_view

        viewed = write_view(
            TreeStore(self.store), self.output, pairs=self.pairs, scorer=self.scorer
        )
        sys.stdout.write(f"{self.output}\n{viewed.text()}")
        return 0


EXECUTORS: Mapping[str, type[Executor]] = {"local": LocalExecutor, "ray": RayExecutor}
Command = type[Collect] | type[Pairs] | type[Import] | type[View]
_NO_OPTIONS: Mapping[str, set[str | int]] = {"collect": {"recipe"}}
COMMANDS: Mapping[str, Command] = {
    "collect": Collect,
    "pairs": Pairs,
    "import": Import,
    "view": View,
}


def make_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(
        prog=f"python -m {MODULE}",
        description="Collect search trees, look at them, and make preference pairs of them.",
    )
    commands = parser.add_subcommands(dest="command")
    for name, command in COMMANDS.items():
        subparser = Parser(description=(command.__doc__ or "").split("\n")[0])
        subparser.add_argument("--config", action="config", help="YAML file with these options.")
        subparser.add_class_arguments(command, skip=_NO_OPTIONS.get(name))
        commands.add_subcommand(name, subparser, help=subparser.description)
    return parser


def run_command(argv: Sequence[str]) -> int:
    """Parse one command and run it."""
    parser = make_parser()
    config = parser.parse_args(list(argv))
    chosen: str = config.command
    # Made apart from the rest, as a tracking server that is down stops nothing.
    logger_spec = config[chosen].pop("logger", None)
    values = parser.instantiate(config)[chosen]
    options = {name: value for name, value in vars(values).items() if name != "config"}
    if chosen == "collect":
        options["recipe"] = config[chosen].as_dict()
    if logger_spec is not None:
        options["logger"] = make_logger(logger_spec, options["store"])
    try:
        return COMMANDS[chosen](**options).run()
    except (PolicyFailure, ClusterFailure) as error:
        again = shlex.join(["python", "-m", MODULE, *argv])
        kind = ClusterFailure if isinstance(error, ClusterFailure) else PolicyFailure
        raise kind(f"{error}. To go on:\n  {again}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    return run_main(run_command, sys.argv[1:] if argv is None else argv, MODULE)


def _read_ids(path: Path) -> set[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DataError(
            f"evaluation_ids: {path} cannot be read ({error.strerror}); "
            "give a text file with one task id a line"
        ) from error
    ids = {line.strip() for line in lines if line.strip()}
    if not ids:
        raise DataError(f"evaluation_ids: {path} holds no id; give one task id a line")
    return ids


def _say_pairs(folder: Path, card: PairCard) -> None:
    sys.stdout.write(
        f"{folder}\n  {card.num_pairs} pairs from {card.num_trees} trees\n"
        f"  by depth: {_listed(card.pairs_by_depth)}\n  left out: {_listed(card.removed)}\n"
    )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items()) or "nothing"
