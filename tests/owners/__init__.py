"""The owner's side of a run that several processes share."""
