"""Figures that can be believed: means, intervals, differences, and how many questions it takes. Pure.

The modules need numpy and scipy (the extra `eval`) when they are loaded, but for `conventions` and `pass_k`; whoever
needs the others loads them late, so that a run without scores does not pay for them.
"""
