"""The tracker's store in one SQLite file: one instance writes, anybody on the machine asks."""
