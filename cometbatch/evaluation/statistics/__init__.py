"""Figures that can be believed: means, intervals, differences, and how many questions it takes. Pure.

Most modules need numpy and scipy (the extra `eval`) when they are loaded: whoever needs them loads them late, so that a
run without scores does not pay for them. `conventions`, `interval` and `pass_k` need neither.
"""
