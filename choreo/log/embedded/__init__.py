"""The embedded logs: no server, the tables of the log in memory or in a file."""
