"""Metrics: what is counted, and how the workers of one port tell it together."""
