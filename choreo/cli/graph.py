"""`choreo graph`: the choreography as a diagram, as data or as text."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from choreo.choreography import Choreography
from choreo.cli.common import Modules
from choreo.cli.load import load_services

EXAMPLES = """Examples:

choreo graph services.shop

choreo graph services.shop --format mermaid > shop.mmd"""

Format = Annotated[Literal["text", "mermaid", "json"], typer.Option("--format", "-f", help="What to print.")]


def graph(modules: Modules = None, output: Format = "text") -> None:
    """Show who reacts to what: every event, its handlers, and what they emit.

    Nothing is run and no log is asked: the graph is read from the handlers' declarations.
    """
    choreography = Choreography.of(load_services(modules or []))
    render = {"text": choreography.to_text, "mermaid": choreography.to_mermaid, "json": choreography.to_json}
    print(render[output]())
