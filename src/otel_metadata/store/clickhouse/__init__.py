"""The store beyond one machine."""

from __future__ import annotations

from otel_metadata.store.clickhouse.store import ClickHouseStore

__all__ = ["ClickHouseStore"]
