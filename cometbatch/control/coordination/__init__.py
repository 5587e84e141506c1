"""One rate, one budget and one stop for several owners of a run: who may work on what, how fast, and for how long."""
