"""What a person at a terminal meets: shared options, one line per fault, tables, JSON."""
