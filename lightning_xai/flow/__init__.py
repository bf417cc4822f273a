"""How a reading flows, the same for every callback: is it due, what is explained, the guarded run, store, loggers."""
