"""The PostgreSQL store: one schema per service, shared by its instances anywhere."""
