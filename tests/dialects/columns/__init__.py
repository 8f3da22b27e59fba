"""One module a vendor's dialect: `DIALECT`, and what it makes of each fact of `tests.dialects.facts`."""
