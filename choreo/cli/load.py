"""Finding services and event classes by the names of the modules that define them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from choreo.errors import ChoreoError, ConfigurationError
from choreo.events import Event, is_event_class
from choreo.service import Service


def named(targets: Sequence[str]) -> list[str]:
    """The targets; where there are none, those in CHOREO_MODULES (separated by commas or spaces)."""
    return list(targets) or os.environ.get("CHOREO_MODULES", "").replace(",", " ").split()


def load_services(targets: Sequence[str]) -> list[Service]:
    """The services that these targets name, each once.

    Args:
        targets: those of CHOREO_MODULES if empty. `MODULE`: its list `services`, else every service that is an
            attribute of it. `MODULE:NAME`: the one of these that has this name.

    Raises:
        ConfigurationError: a module is not there, cannot be imported, or has no (such) service.
        DeclarationError: a declaration in it is wrong.
    """
    return _unique(service for module, name in _modules(targets) for service in _services(module, name))


def load_choreographies(targets: Sequence[str]) -> dict[str, list[Service]]:
    """The services that these targets name, by choreography.

    A package without services of its own stands for its sub-packages that have some, each a choreography of its own. The
    services of all other targets are one choreography.

    Raises:
        ConfigurationError: as `load_services`.
        DeclarationError: a declaration in it is wrong.
    """
    apart: dict[str, list[Service]] = {}
    together: dict[str, list[Service]] = {}
    for module, name in _modules(targets):
        inside = {} if name or _listed(module) else _sub_packages(module)
        if inside:
            apart |= inside
        else:
            together[f"{module.__name__}:{name}" if name else module.__name__] = _services(module, name)
    if together:
        apart = {" ".join(together): _unique(service for some in together.values() for service in some)} | apart
    return apart


def event_classes(targets: Sequence[str]) -> list[type[Event]]:
    """The event classes that these targets' modules define or import, and those that their services use, each once.

    Raises:
        ConfigurationError: as `load_services`, but a module with events alone is fine.
    """
    found: list[type[Event]] = []
    for module, name in _modules(targets):
        own = [value for value in vars(module).values() if is_event_class(value)]
        services = _services(module, name) if name else _listed(module)
        own += [event for service in services for event in service.event_classes]
        if not own:
            remedy = "name the module that defines them"
            raise ConfigurationError(f"module {module.__name__!r} has neither events nor services", remedy=remedy)
        found += own
    return _unique(found)


def _modules(targets: Sequence[str]) -> list[tuple[ModuleType, str]]:
    """The targets' modules, each with the name of the service that is meant; it is empty for all."""
    places = [target.partition(":") for target in named(targets)]
    if not places:
        raise ConfigurationError("no module is named", remedy="name one, such as services.shop, or set CHOREO_MODULES")
    return [(imported(module), name) for module, _, name in places]


def _services(module: ModuleType, name: str) -> list[Service]:
    there = _listed(module)
    chosen = [service for service in there if name in {"", service.name}]
    if not chosen:
        what = f"service {name!r}" if name else "services"
        known = ", ".join(service.name for service in there)
        remedy = f"its services are: {known}" if known else "define one: payments = Service('payments')"
        raise ConfigurationError(f"module {module.__name__!r} has no {what}", remedy=remedy)
    return chosen


def _sub_packages(module: ModuleType) -> dict[str, list[Service]]:
    """The packages directly inside a package that have services, with these."""
    names = [
        f"{module.__name__}.{found.name}" for found in iter_modules(getattr(module, "__path__", ())) if found.ispkg
    ]
    found = {name: _listed(imported(name)) for name in names}
    return {name: services for name, services in found.items() if services}


def _listed(module: ModuleType) -> list[Service]:
    listed = getattr(module, "services", None)
    values = listed if isinstance(listed, (list, tuple)) else vars(module).values()
    return [value for value in values if isinstance(value, Service)]


def imported(name: str) -> ModuleType:
    """The module of this name; the current folder is searched too.

    Raises:
        ConfigurationError: it is not there, or cannot be imported.
        DeclarationError: a declaration in it is wrong.
    """
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        guess = name.removesuffix(".py").replace("/", ".").strip(".")
        raise ConfigurationError(f"{name!r} is no module name", remedy=f"write it as in an import, such as {guess}")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return import_module(name)
    except ChoreoError:
        raise
    except Exception as error:  # a user's module may raise anything while it is imported
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            remedy = f"run choreo in the folder it is in (this is {Path.cwd()}), or install it"
            raise ConfigurationError(f"there is no module {error.name!r}", remedy=remedy) from error
        why = f"{type(error).__name__}: {error}"
        remedy = "choreo --debug run ... shows where"
        raise ConfigurationError(f"module {name!r} cannot be imported", why=why, remedy=remedy) from error


def _unique(items: Iterable[Any]) -> list[Any]:
    """The items without repetition, by identity: two equal services are still two."""
    return list({id(item): item for item in items}.values())
