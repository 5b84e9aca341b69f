"""Rows of tenants, catalogs and customers."""
