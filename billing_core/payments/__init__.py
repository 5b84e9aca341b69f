"""Collecting what is due: states of a payment and what moves between them."""
