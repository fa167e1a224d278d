"""Benchmarks: our server against its peers on this machine. `make bench`, or `python -m tests.bench --help`."""
