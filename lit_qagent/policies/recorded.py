"""Records what a policy answers, and gives the same answers again without it."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from lit_qagent.core.errors import ConfigError, ContextOverflow
from lit_qagent.core.records import Constraint, Message, Proposal, Sampling, total_cost
from lit_qagent.policies.base import Policy, check_request
from lit_qagent.policies.recorded_answers import Recorded, Request
from lit_qagent.policies.recording import Recording


class RecordedPolicy(Policy):
    """Answers from a recording, without network or model; with ``mode: record``, makes it.

    A request is known by its messages, n, sampling, constraint and seed. Recording goes on where
    it was stopped: what the file holds is not asked again. Prompts that were too long are recorded
    too, failures are not. The file holds answers, hashes of the requests and the policy's
    settings; no messages and no key.

    Args:
        path: The file.
        mode: ``replay`` never asks anybody; ``record`` asks ``policy`` for what is missing.
        policy: Who answers while recording; not needed, and never asked, in a replay.
    """

    def __init__(
        self,
        path: str | Path,
        mode: Literal["record", "replay"] = "replay",
        policy: Policy | None = None,
    ) -> None:
        super().__init__()
        if mode not in ("record", "replay"):
            raise ConfigError(f"RecordedPolicy.mode must be record or replay, got {mode!r}")
        if mode == "record" and policy is None:
            raise ConfigError("RecordedPolicy with mode 'record' needs the policy to record")
        self.path = Path(path)
        self.mode = mode
        self.policy = policy
        if mode == "record" and policy is not None:
            self.usage = policy.usage  # what is really spent; a replay counts what that was
            self.max_num_seqs = policy.max_num_seqs
        self._lock = threading.Lock()
        self._recording: Recording | None = None

    async def propose(
        self,
        messages: Sequence[Message],
        n: int,
        sampling: Sampling,
        *,
        constraint: Constraint | None = None,
        seed: int | None = None,
    ) -> list[Proposal]:
        """Return the recorded samples, or record them.

        Raises:
            ConfigError: See `Policy.propose`.
            ContextOverflow: The prompt was too long for the policy.
            DataError: In a replay: no recording, a damaged one, or none of this request.
            PolicyFailure: While recording: the policy gave no answer.
            StoreError: While recording: the file cannot be written, is being written by somebody
                else, or is that of another policy.
        """
        check_request(n, constraint)
        request = Request(
            messages=tuple(messages), n=n, sampling=sampling, constraint=constraint, seed=seed
        )
        recording = self._open()
        index, answer = recording.next(request)
        if answer is None:
            if self.mode == "replay":
                raise recording.missing(request)
            answer = recording.add(request, index, await self._ask(request))
        if answer.overflow is not None:
            raise ContextOverflow(answer.overflow)
        proposals = answer.to(request)
        if self.mode == "replay":
            self.usage.add(total_cost(proposals))
        return proposals

    def settings(self) -> dict[str, Any]:
        """Return those of the policy that answers or has answered; the mode makes no difference.

        Raises:
            DataError: In a replay: no recording, or a damaged one.
        """
        if self.mode == "record" and self.policy is not None:
            return {"policy": "recorded", "answers": self.policy.settings()}
        return {"policy": "recorded", "answers": self._open().settings}

    async def close(self) -> None:
        """Let go of the file and close the policy."""
        with self._lock:
            recording, self._recording = self._recording, None
        if recording is not None:
            recording.close()
        if self.policy is not None:
            await self.policy.close()

    def _open(self) -> Recording:
        with self._lock:
            if self._recording is None:
                recorded = self.policy if self.mode == "record" else None
                settings = recorded.settings() if recorded is not None else None
                self._recording = Recording(self.path, settings)
            return self._recording

    async def _ask(self, request: Request) -> Recorded:
        """Ask the policy."""
        assert self.policy is not None
        try:
            proposals = await self.policy.propose(
                request.messages,
                request.n,
                request.sampling,
                constraint=request.constraint,
                seed=request.seed,
            )
        except ContextOverflow as error:
            return Recorded(overflow=str(error))
        return Recorded(proposals=tuple(proposals))
