"""Files: what comes in, where it lies, who may read it."""
