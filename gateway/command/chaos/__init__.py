"""Attacks on a whole running house, and the account of what they broke."""
