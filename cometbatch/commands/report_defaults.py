"""What `report` does unless it is told otherwise; loads nothing, so that the command line can name it in its help."""

from typing import Final

DEFAULT_ROWS: Final = 100_000  # that a page has at most
DEFAULT_FILE: Final = "report.html"
