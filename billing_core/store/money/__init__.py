"""Rows of grants, payments and books."""
