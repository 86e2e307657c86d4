"""HotPotQA on a local docstore."""

from lit_qagent.environments.hotpotqa.environment import HotPotQA

__all__ = ["HotPotQA"]
