"""LLMs that propose actions."""
