"""The tracker's own store. `make_tracker_store` picks the adapter by the address."""
