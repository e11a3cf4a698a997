"""What starts runs by the clock."""
