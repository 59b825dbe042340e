"""From a net to the formats that targets run. Imports nothing: a stage takes the one it needs."""
