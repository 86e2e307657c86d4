"""Backbone, Q-heads, Q-model, scorer and shareable checkpoints."""
