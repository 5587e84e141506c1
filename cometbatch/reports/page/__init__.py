"""The report: one HTML file that shows results, and works without a network."""
