"""The bytes of files, by key: one port, and disk behind it."""
