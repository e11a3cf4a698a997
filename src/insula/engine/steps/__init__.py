"""One file a step type."""
