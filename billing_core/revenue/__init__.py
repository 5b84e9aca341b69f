"""When money that was billed becomes revenue."""
