"""Masks: what is replaced before a value is set, stored or sent."""

from __future__ import annotations

from otel_metadata.model.masking import Mask, Masking

__all__ = ["Mask", "Masking"]
