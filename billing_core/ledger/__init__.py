"""Double-entry books: accounts, transfers, entries."""
