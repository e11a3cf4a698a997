"""The database: one page of tables, units of writing, and the two dialects."""
