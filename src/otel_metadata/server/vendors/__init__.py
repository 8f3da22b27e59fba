"""The APIs of vendors that the server answers: one module a vendor, and what they share."""
