"""One file a DVC stage: read params and files, call, write declared outs."""
