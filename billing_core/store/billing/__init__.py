"""Rows of subscriptions, periods, invoices and schedules."""
