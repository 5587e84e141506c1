"""What a run knows of itself, on disk: manifest, sessions, journals, marks, parts."""
