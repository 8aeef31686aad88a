"""How sagas look: each view is plain data made of a `Saga`, and lines of text made of that. Pure.

Lines know styles by what they mean (`good`, `bad`, …) and nothing of terminals: `choreo.cli` colours them, or leaves that when piped.
"""
