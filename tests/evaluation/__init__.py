"""Scores, statistics and verdicts."""
