"""OTLP in: spans, and evaluations as log events, over HTTP and gRPC."""
