"""Values that travel: pure, without I/O, clock or threads."""
