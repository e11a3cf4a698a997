"""The insula command."""
