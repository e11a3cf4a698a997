"""Insula: a self-hosted platform for AI workflows whose runs really stop when they are cancelled."""

__version__ = "0.1.0"
