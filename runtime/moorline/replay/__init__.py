"""Replay: plays recorded conversations through the real runtime, to check that every turn goes as recorded."""
