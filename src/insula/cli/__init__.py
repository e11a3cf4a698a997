"""The insula command: thin, and always over HTTP, so that it can do what every client can."""
