"""HotPotQA on a local docstore or live Wikipedia."""

from lit_qagent.environments.hotpotqa.environment import HotPotQA

__all__ = ["HotPotQA"]
