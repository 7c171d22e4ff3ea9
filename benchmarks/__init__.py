"""Benchmarks: `python -m benchmarks` lists them. They need a checkout, and most of them local footage."""
