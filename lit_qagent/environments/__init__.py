"""Worlds that an agent acts in."""
