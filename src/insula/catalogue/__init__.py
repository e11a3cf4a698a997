"""What other apps have published, and running it."""
