"""``insula db``: what an operator does with the database by hand."""
