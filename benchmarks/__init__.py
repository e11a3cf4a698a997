"""What the product claims about speed and size, as programs that print it."""
