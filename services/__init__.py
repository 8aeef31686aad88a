"""Example services, one package per scenario; each is a thing to copy and start from."""
