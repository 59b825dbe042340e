"""How a runner is reached: here, in an environment of its own, or on a device."""
