"""Selection among measured candidates."""
