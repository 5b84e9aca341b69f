"""What an operator sets up: tenants, catalogs, customers, keys."""
