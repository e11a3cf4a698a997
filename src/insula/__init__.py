"""Insula: a self-hosted platform for AI workflows whose runs really stop when cancelled."""

__version__ = "0.1.0"
