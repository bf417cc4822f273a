"""The linear algebra of concept directions."""
