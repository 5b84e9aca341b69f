"""Real traffic through the real gate, and the proof that every token of it was billed."""
