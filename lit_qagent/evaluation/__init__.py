"""Plays held-out tasks with several agents and reports with intervals."""
