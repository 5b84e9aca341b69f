"""What the gateway and the billing core share, and nothing else."""
