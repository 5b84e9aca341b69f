"""Credit blocks and the order in which they burn."""
