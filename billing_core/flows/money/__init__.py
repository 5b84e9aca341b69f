"""Money and credit come in, are spent and lapse."""
