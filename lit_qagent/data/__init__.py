"""From preference pairs to batches of tokens."""
