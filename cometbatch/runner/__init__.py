"""The loop: calls in, outcomes out. Knows no vendor, file format or command."""
