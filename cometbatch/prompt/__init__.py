"""What is said: templates filled in by a row."""
