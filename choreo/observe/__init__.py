"""What an operator sees: logs and metrics. Each part loads only the library it needs."""
