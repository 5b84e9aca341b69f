"""The tables of routes, one module per noun."""
