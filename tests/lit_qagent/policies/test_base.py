import pytest

from lit_qagent.core.errors import ConfigError, ContextOverflow
from lit_qagent.core.records import Constraint
from lit_qagent.policies.base import check_request, check_room


@pytest.mark.parametrize("n", [0, -1])
def test_too_few_actions_are_refused(n: int) -> None:
    with pytest.raises(ConfigError, match=f"at least one action, got n={n}"):
        check_request(n, None)


def test_empty_and_repeated_choices_are_refused() -> None:
    with pytest.raises(ConfigError, match="an empty choice among 2"):
        check_request(1, Constraint(choices=("click[a]", " ")))
    with pytest.raises(ConfigError, match=r"lists \['click\[a\]'\] more than once"):
        check_request(1, Constraint(choices=("click[a]", "click[b]", "click[a]")))


def test_a_prompt_must_leave_room_for_the_longest_action() -> None:
    check_room(90, 10, 100)
    with pytest.raises(ContextOverflow, match="91 tokens and an action may take 10"):
        check_room(91, 10, 100)
