"""Everything on one machine: who is started, kept alive and stopped, and in which order."""
