"""Time, throughput and temporary memory of our paths side by side: python -m benchmarks --help."""
