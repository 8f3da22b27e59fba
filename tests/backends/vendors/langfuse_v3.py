"""Langfuse 3, which still takes updates: the same exporter on its other way."""

from __future__ import annotations

from tests.backends.vendors import langfuse
from tests.backends.vendors.case import Case

CASE = Case(
    name="langfuse_v3",
    double=lambda: langfuse.LangfuseDouble("legacy"),
    exporter=lambda url: langfuse.exporter(url, "langfuse_v3"),
    patch=langfuse.patch,
    know=langfuse.know,
    reports_missing=False,
    path=r"/api/public/(health|ingestion|observations/[0-9a-f]{16})",
)
