"""After the end: outboxes, workers, back-off, counts."""
