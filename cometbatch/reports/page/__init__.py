"""The report: one HTML file that shows results, and works without a network."""

from typing import Final

DEFAULT_ROWS: Final = 100_000  # that a page has at most
DEFAULT_FILE: Final = "report.html"
