"""The verbs of the platform: pure functions from a snapshot to what should change. No clock, no randomness, no I/O."""
