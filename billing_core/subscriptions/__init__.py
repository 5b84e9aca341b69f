"""Who is on what plan, from when to when."""
