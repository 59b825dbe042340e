"""The answer per target."""
