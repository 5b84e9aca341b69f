"""Periods become invoices, and service becomes revenue."""
