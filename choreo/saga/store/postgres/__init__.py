"""The tracker's store in one schema of a PostgreSQL database: several instances read, fold and ask."""
