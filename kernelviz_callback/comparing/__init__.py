"""Snapshots and checkpoints beside each other: what changed, what is alike, how to see it."""
