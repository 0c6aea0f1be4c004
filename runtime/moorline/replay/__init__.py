"""Replay: recorded conversations played through the shipping runtime, to see that no turn loses its way."""
