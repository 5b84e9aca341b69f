"""How raw events become billable quantities."""
