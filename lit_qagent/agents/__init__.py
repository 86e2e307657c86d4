"""Prompts, selection rules and the playing of one episode."""
