"""One file for each command; what the command line calls."""
