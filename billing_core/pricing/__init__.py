"""How quantities become exact money."""
