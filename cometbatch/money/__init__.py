"""What it costs: exact amounts, and prices for each target."""
