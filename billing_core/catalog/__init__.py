"""What is sold: features, meters, prices and plans."""
