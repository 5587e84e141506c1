"""What a result came to, as figures and as words: figures are made apart from how they are drawn."""
