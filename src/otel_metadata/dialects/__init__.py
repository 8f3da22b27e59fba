"""How each backend spells metadata, evaluations, … as span attributes. Pure."""
