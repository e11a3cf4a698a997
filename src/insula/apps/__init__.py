"""Apps and their keys: who may ask."""
