"""Collects agent trajectories with MCTS and turns the trees into preference pairs."""
