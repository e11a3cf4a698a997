"""Files: stored once, shown by signed address, taken in from every form an input may have."""
