"""Figures of results, and how they are told."""
