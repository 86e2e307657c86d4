"""The collector's search as an agent of ``predict``: it searches a task first, then acts.

A search tries actions in copies of the world, which no agent can do in earnest, and most variants
look at the true reward there; reports say both. What it costs is counted with the episode.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from data_collection.iterations import Cost, Iteration, TreeHeader
from data_collection.search import TreeSearch
from data_collection.setup import SearchSetup
from data_collection.spec import SearchSpec
from data_collection.tree import ROOT, Node, SearchTree
from data_collection.variants import VARIANTS
from lit_qagent.agents.episode import Episode, EpisodeCut, play_from
from lit_qagent.agents.guided import Decision, GuidedAgent, Proposals
from lit_qagent.agents.prompts import extend_history, start_history
from lit_qagent.agents.selection import Selection
from lit_qagent.agents.trials import Trials
from lit_qagent.core.errors import EnvironmentFailure, PolicyFailure
from lit_qagent.core.records import (
    History,
    Observation,
    Proposal,
    Step,
    Task,
    Trajectory,
    Usage,
)
from lit_qagent.environments.base import Environment

_COPIES = "copies of the world"


class SearchTrials(Trials):
    """Searches a task with MCTS, then plays the best that it found, once.

    Variants that use the true reward play the episode of highest reward that they saw. The others
    (``q_only``, ``score_only``) never stop at a success, and follow the most visited actions; what
    is left behind them is played by the agent's own selector.

    Args:
        search: How to search, as in ``collect``.

    Attributes:
        uses: What every report says of it.
    """

    def __init__(
        self,
        search: SearchSpec = SearchSpec(),  # noqa: B008 (frozen)
    ) -> None:
        kind = VARIANTS[search.variant]
        self._uses_reward = kind.uses_reward
        self._priors_are_values = kind.selection == "valued"
        self._search = search
        if not kind.uses_reward:
            self._search = replace(search, stop_at_success=False)
        self.needs_scorer = kind.needs_scorer
        self.uses = f"the true reward and {_COPIES}" if kind.uses_reward else _COPIES
        self.search = self._search.manifest()

    async def play(
        self, agent: GuidedAgent, environment: Environment, task: Task, *, seed: int
    ) -> Episode:
        """Search, then play.

        Raises:
            EpisodeCut: The policy gave no answer, or the world broke; with what it has cost.
            EnvironmentFailure: The world cannot start the task.
        """
        found = _Found(priors_are_values=self._priors_are_values)
        search = TreeSearch(self._setup(agent, environment, seed), task)
        tree = search.tree
        try:
            await found.watch(search)
            moves = found.best_moves(tree) if self._uses_reward else found.most_visited(tree)
            return await _act_out(agent, environment, task, seed=seed, moves=moves, found=found)
        except (PolicyFailure, EnvironmentFailure) as error:  # of the search, or before it acts
            raise EpisodeCut(found.nothing_played(search.header)) from error

    def _setup(self, agent: GuidedAgent, environment: Environment, seed: int) -> SearchSetup:
        return SearchSetup(
            environment=environment,
            policy=agent.policy,
            search=self._search,
            prompt=agent.prompt,
            sampling=agent.sampling,
            seed=seed,
            scorer=agent.scorer if self.needs_scorer else None,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Move:
    """An action to take, among those that the search knew there.

    Attributes:
        actions: What there was to choose from.
        values: What the search thinks each is worth; None unless it knows of all of them.
        chosen: Which one.
    """

    actions: tuple[str, ...]
    values: tuple[float, ...] | None
    chosen: int

    def decision(self) -> Decision:
        """Return it as a decision without a cost, which is counted with the search."""
        proposals = tuple(Proposal(text=action, num_tokens=0) for action in self.actions)
        return Decision(
            proposed=Proposals(proposals=proposals),
            selection=Selection(index=self.chosen, scores=self.values),
        )


@dataclass(kw_only=True)
class _Found:
    """What a search has brought: its moves, and its cost.

    Attributes:
        priors_are_values: True if the prior of an action that the search has not tried says what
            it is worth; a share of the attention does not.
        best: The episode of highest reward, the earlier of two equal ones: a node, and the steps of
            a rollout behind it.
        reward: Its reward.
        num_steps: Steps taken in copies of the world, by the iterations that were finished.
        cost: What its requests have cost, those of iterations that failed or were given up too.
    """

    priors_are_values: bool
    best: tuple[int, tuple[Step, ...]] | None = None
    reward: float = -1.0
    num_steps: int = 0
    cost: Cost = field(default_factory=Cost)

    async def watch(self, search: TreeSearch) -> None:
        """Search to the end and close it, remembering the best episode and what was spent."""
        try:
            while search.end_reason is None:
                iteration = await search.iterate()
                self.num_steps += len(iteration.steps)
                self._remember(search.tree, iteration)
        finally:
            await search.close()  # what is given up now is paid for, too
            self.cost = search.spent

    def best_moves(self, tree: SearchTree) -> tuple[_Move, ...]:
        """Return the moves of the best episode; none if no episode has ended."""
        if self.best is None:
            return ()
        index, rollout = self.best
        path = [self._chosen(tree, node) for node in tree.path(index)[1:]]
        return (*path, *map(_rolled_out, rollout))

    def most_visited(self, tree: SearchTree) -> tuple[_Move, ...]:
        """Return the moves along the most visited children; ties go to higher values."""
        moves: list[_Move] = []
        node = tree.nodes[ROOT]
        while node.children:
            children = [tree.nodes[index] for index in node.children]
            node = max(children, key=lambda child: (child.visits, child.value, child.prior or 0.0))
            moves.append(self._chosen(tree, node))
        return tuple(moves)

    def usage(self) -> Usage:
        """Return what the policy was asked for."""
        return Usage(
            requests=self.cost.requests,
            prompt_tokens=self.cost.prompt_tokens,
            generated_tokens=self.cost.generated_tokens,
        )

    def nothing_played(self, header: TreeHeader) -> Episode:
        """Return an episode without steps that bears the cost of the search.

        It asks nothing of the world, which may be what broke.
        """
        return Episode(
            trajectory=Trajectory(
                task_id=header.task_id,
                first_observation=Observation(text=header.first_observation),
                steps=(),
            ),
            decisions=(),
            history=History(head=header.head),
            usage=self.usage(),
            extra_steps=self.num_steps,
            dropped_steps=self.cost.dropped_steps,
            cut_candidates=self.cost.cut_actions,
        )

    def _chosen(self, tree: SearchTree, node: Node) -> _Move:
        """Return the move that leads to a node, with its siblings and what is known of them now."""
        assert node.parent is not None  # the root is no move
        siblings = [tree.nodes[index] for index in tree.nodes[node.parent].children]
        known = [self._value(sibling) for sibling in siblings]
        values = tuple(value for value in known if value is not None)
        return _Move(
            actions=tuple(sibling.step.action for sibling in siblings if sibling.step is not None),
            values=values if len(values) == len(siblings) else None,
            chosen=siblings.index(node),
        )

    def _value(self, node: Node) -> float | None:
        """Return what the search thinks a node is worth; None if it does not know."""
        if node.visits:
            return node.value
        return node.prior if self.priors_are_values else None

    def _remember(self, tree: SearchTree, iteration: Iteration) -> None:
        """Keep the best of the ends that an iteration saw, in the tree or in its rollout."""
        first = len(tree.nodes) - len(iteration.children)
        options: list[tuple[int, tuple[Step, ...]]] = [
            (first + offset, ()) for offset, step in enumerate(iteration.children) if step.is_last
        ]
        if iteration.rollout:
            options.append((iteration.evaluated, iteration.rollout))
        for index, rollout in options:
            last = rollout[-1] if rollout else tree[index].step
            if last is not None and last.reward > self.reward:
                self.reward, self.best = last.reward, (index, rollout)


def _rolled_out(step: Step) -> _Move:
    return _Move(actions=(step.action,), values=None, chosen=0)


async def _act_out(
    agent: GuidedAgent,
    environment: Environment,
    task: Task,
    *,
    seed: int,
    moves: Sequence[_Move],
    found: _Found,
) -> Episode:
    """Play moves in a fresh branch, then what is left as the agent plays."""
    branch = environment.fork()
    branch.reset(task)
    history = start_history(branch, agent.prompt)
    decisions: list[Decision] = []
    for move in moves:
        step = await branch.act(move.actions[move.chosen])
        history = extend_history(history, step)
        decisions.append(move.decision())
    start = Episode(
        trajectory=branch.trajectory,
        decisions=tuple(decisions),
        history=history,
        usage=found.usage(),
        extra_steps=found.num_steps,
        dropped_steps=found.cost.dropped_steps,
        cut_candidates=found.cost.cut_actions,
    )
    return await play_from(agent, branch, task, start, seed=seed)
