"""What a process leaves behind in its folder when it dies, and who finds it."""
