"""The SQLite store: one file per service, shared by its instances on one machine."""
