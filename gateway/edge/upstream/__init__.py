"""The servers that a reverse proxy stands before: connections to them, and what they answer."""
