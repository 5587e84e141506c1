"""What comes out: columns, totals, parts, the published result."""
