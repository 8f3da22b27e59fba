"""After a span has ended: outboxes, workers, back-off, counts."""
