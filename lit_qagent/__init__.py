"""Step-level Q-value models that make LLM agents decide better."""

__version__ = "0.1.0"
