"""The self-improvement loop: search, train, and keep a Q-model only if it acts better."""
