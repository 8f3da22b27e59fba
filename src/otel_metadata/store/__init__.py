"""Spans at rest."""
