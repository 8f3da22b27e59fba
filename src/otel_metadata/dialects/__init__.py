"""How backends spell metadata, evaluations, … as span attributes. Pure."""
