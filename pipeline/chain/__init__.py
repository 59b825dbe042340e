"""The stages of the chain: each reads params and files, calls, and writes its declared outs."""
