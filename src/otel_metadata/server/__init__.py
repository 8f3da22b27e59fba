"""A local server: OTLP in, the vendors' PATCH calls, and one API over a store."""
