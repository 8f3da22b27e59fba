"""The application's thread: observed calls, spans, updates, context metadata, captures."""
