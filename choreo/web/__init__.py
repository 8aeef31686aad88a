"""Questions about sagas over HTTP: JSON, read-only, for whoever has the token. `choreo.web.app.make_app`."""
