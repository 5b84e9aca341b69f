"""What is sold: meters, features, prices and plans, as an operator writes them down."""
