"""What the claims measure with: load, peers, facts about the machine."""
