"""What every world does, whatever it is."""

import pytest

from lit_qagent.core.errors import EnvironmentFailure
from lit_qagent.core.records import Observation, Task
from lit_qagent.environments.base import Outcome
from lit_qagent.environments.toy import ToyWorld


class Lost(ToyWorld):
    """Has no connection to where its first task is, and loses the others' at the first step."""

    def _start(self, task: Task) -> Observation:
        if task == self.tasks("train")[0]:
            raise ConnectionError("no route")
        return super()._start(task)

    def _act(self, command: str) -> Outcome:
        raise TimeoutError("the socket timed out")


def test_a_lost_connection_is_a_failure_of_the_world() -> None:
    world = Lost()
    first, second = world.tasks("train")[:2]

    with pytest.raises(EnvironmentFailure, match=r"starting task .* failed .*: no route\)") as lost:
        world.reset(first)
    assert isinstance(lost.value.__cause__, ConnectionError)

    world.reset(second)
    with pytest.raises(EnvironmentFailure, match=r"toy: a step failed \(TimeoutError: the socket"):
        world.step("pick[a]")
    assert not world.is_over
    assert world.actions == ()
