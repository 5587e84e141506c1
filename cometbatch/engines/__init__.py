"""What carries a run: a session over partitions, on an event loop."""
