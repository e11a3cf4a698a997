"""JavaScript in killable worker processes."""
