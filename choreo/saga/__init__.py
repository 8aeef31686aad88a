"""What is known of a whole saga: all events of one correlation id."""
