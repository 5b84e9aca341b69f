"""What decides: who is calling, what the script answered, and what that means."""
