"""The files of a store: the manifest, the readings, and what is described in them."""
