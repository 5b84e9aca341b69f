"""Schema, named queries and invariants, as SQL files."""
