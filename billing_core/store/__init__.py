"""Named query in, struct out; no decisions."""
