"""Webhooks: telling the outside of what happens, and being told by it to start runs."""
