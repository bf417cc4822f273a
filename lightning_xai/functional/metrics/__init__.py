"""Numbers said of an explanation."""
