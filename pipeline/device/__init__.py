"""The device side: run what was pulled."""
