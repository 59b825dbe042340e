"""Store, releases, resolution."""
