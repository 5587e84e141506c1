"""Answers judged: scorers, pairs and verdicts, statistics. Pure: no files, no event loop, no clock, no chance."""
