"""Claims about speed and cost, one file each; every run prints JSON lines with what it ran on."""
