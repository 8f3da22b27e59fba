"""Where patches go: one file a backend."""
