"""What comes in: tables, read the same on every machine."""
