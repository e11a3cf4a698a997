"""Runs: start, watch, cancel, replay, forget."""
