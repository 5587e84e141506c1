"""What the service tells of itself: its catalog of models and prices."""
