"""Outgoing HTTP under one egress policy."""
