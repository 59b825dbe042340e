"""Prune, distill, quantize: one technique a file."""
