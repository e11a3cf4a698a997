"""Where bytes of files lie."""
