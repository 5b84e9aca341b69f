"""One clean bill whose every line traces to its events."""
