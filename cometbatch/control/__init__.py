"""How fast, how long, whose fault: pure decisions, told the time."""
