"""Speed and memory, proven against named baselines; results are committed in docs/benchmarks/."""
