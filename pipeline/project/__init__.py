"""A project of the user's own: what `slipway init` writes."""
