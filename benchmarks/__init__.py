"""Speed and memory against a named peer in the same process; run one with ``python -m benchmarks.<name>``."""
