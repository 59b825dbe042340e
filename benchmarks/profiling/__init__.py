"""What measurements are worth, measured: each module writes a page in docs/benchmarks/."""
