"""Programs over stored spans."""

from otel_metadata.client.client import Client
from otel_metadata.client.columns import AnnotateRecordInput, AnnotationInput
from otel_metadata.client.report import UpdateReport

__all__ = ["AnnotateRecordInput", "AnnotationInput", "Client", "UpdateReport"]
