"""The durable record of runs in flight."""
