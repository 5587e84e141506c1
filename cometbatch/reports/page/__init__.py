"""The report as a page: what is counted, which rows go into it, and how they are written."""
