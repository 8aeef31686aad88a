"""Real servers for tests, benchmarks and chaos: started here, on free ports of 127.0.0.1, without containers."""
