import io

from rich.console import Console

from lit_qagent.evaluation.progress import EpisodeProgress
from tests.toy_players import make_episode


def test_the_summary_counts_by_agent_with_the_running_mean_reward() -> None:
    with EpisodeProgress({"plain": 2, "q": 2}, Console(file=io.StringIO())) as progress:
        progress.count(make_episode("plain", "a", reward=1.0, generated_tokens=10))
        progress.count(make_episode("plain", "b", reward=0.5, generated_tokens=10))
        progress.count(make_episode("q", "a", steps=[], failure="PolicyFailure: x"))

        said = progress.summary()

    assert said.startswith("3/4 episodes (plain 2/2 reward 0.75; q 1/2 failed 1), ")
    assert said.endswith(" s left")
    assert "tokens/s" in said


def test_nothing_is_promised_before_the_first_episode() -> None:
    progress = EpisodeProgress({"plain": 1}, Console(file=io.StringIO()))

    assert progress.summary().endswith("time left unknown")


def test_a_terminal_shows_one_row_per_agent() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)

    with EpisodeProgress({"plain": 1, "q": 1}, console) as progress:
        progress.count(make_episode("plain", "a", reward=1.0))

    assert "plain" in screen.getvalue()
    assert "1/1" in screen.getvalue()
    assert "reward 1.00" in screen.getvalue()
