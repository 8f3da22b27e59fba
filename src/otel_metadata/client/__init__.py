"""Programs over stored spans."""

from otel_metadata.client.client import Client

__all__ = ["Client"]
