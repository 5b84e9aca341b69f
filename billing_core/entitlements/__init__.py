"""What a customer may do now, resolved into a snapshot."""
