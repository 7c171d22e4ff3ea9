"""Evaluation of weights and of finished videos: `lipdub eval`."""
