"""The scripts once more, in plain Python."""
