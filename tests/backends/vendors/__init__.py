"""One module a vendor: a double of its server, with its bad habits, and the `CASE` that the contract suite runs."""
