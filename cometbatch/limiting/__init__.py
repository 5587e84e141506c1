"""How many requests and tokens may leave in a minute."""
