"""A run of several owners in one thread and on one virtual clock: every seed is one life, the same each time.

What is real: coordinator, owners, runner, partitions, journals, marks, parts. What is simulated: processes, their
clocks, the net, the service, and what a disk does at a kill or a power cut.
"""
