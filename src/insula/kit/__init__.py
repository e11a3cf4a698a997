"""Ids, JSON and clocks: what every other folder stands on. No domain words."""
