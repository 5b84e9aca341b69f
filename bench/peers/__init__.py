"""Peers side by side: the same request to each of them, in turn, on the same two processors, in one run."""
