"""Finding services and event classes by the names of the modules that define them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from choreo.errors import ChoreoError, ConfigurationError
from choreo.events import Event, is_event_class
from choreo.service import Service


def named(targets: Sequence[str]) -> list[str]:
    """The targets; where there are none, those in CHOREO_MODULES (separated by commas or spaces)."""
    return list(targets) or os.environ.get("CHOREO_MODULES", "").replace(",", " ").split()


def _required(targets: Sequence[str]) -> list[str]:
    found = named(targets)
    if not found:
        raise ConfigurationError("no module is named", remedy="name one, such as services.shop, or set CHOREO_MODULES")
    return found


def load_services(targets: Sequence[str]) -> list[Service]:
    """The services that these targets name, each once.

    Args:
        targets: those of CHOREO_MODULES if empty. `MODULE`: its `services` (a list or tuple), else every service that is an attribute of it.
            `MODULE:NAME`: the attribute of that name, else the module's service of that name.

    Raises:
        ConfigurationError: a module is not there, cannot be imported, or has no (such) service.
        DeclarationError: a declaration in it is wrong.
    """
    return _unique(service for target in _required(targets) for service in _services(target))


def event_classes(targets: Sequence[str]) -> list[type[Event]]:
    """The event classes that these targets' modules define or import, and those that their services use, each once.

    Raises:
        ConfigurationError: as `load_services`, but a module with events alone is fine.
    """
    found: list[type[Event]] = []
    for target in _required(targets):
        module = _module(target)
        services = _services(target) if ":" in target else _of_module(module)
        own = [value for value in vars(module).values() if is_event_class(value)]
        own += [event for service in services for event in service.event_classes]
        if not own:
            raise ConfigurationError(
                f"module {module.__name__!r} has neither events nor services",
                remedy="name the module that defines them",
            )
        found += own
    return _unique(found)


def _services(target: str) -> list[Service]:
    module, name = _module(target), target.partition(":")[2]
    services = _of_module(module)
    if not name and services:
        return services
    chosen = _as_services(getattr(module, name, None)) if name else []
    chosen = chosen or [service for service in services if service.name == name]
    if chosen:
        return chosen
    what = f"service {name!r}" if name else "services"
    known = ", ".join(service.name for service in services)
    raise ConfigurationError(
        f"module {module.__name__!r} has no {what}",
        remedy=f"its services are: {known}" if known else "define one: payments = Service('payments')",
    )


def _of_module(module: ModuleType) -> list[Service]:
    listed = _as_services(getattr(module, "services", None))
    return listed or _unique(value for value in vars(module).values() if isinstance(value, Service))


def _as_services(value: Any) -> list[Service]:
    if isinstance(value, Service):
        return [value]
    if isinstance(value, (list, tuple)) and all(isinstance(item, Service) for item in value):
        return list(value)
    return []


def _module(target: str) -> ModuleType:
    name = target.partition(":")[0]
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        guess = name.removesuffix(".py").replace("/", ".").strip(".")
        raise ConfigurationError(f"{name!r} is no module name", remedy=f"write it as in an import, such as {guess}")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return import_module(name)
    except ChoreoError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"there is no module {error.name!r}",
                remedy=f"run choreo in the folder it is in (this is {Path.cwd()}), or install it",
            ) from error
        raise _broken(name, error) from error
    except Exception as error:  # a user's module may raise anything while it is imported
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> ConfigurationError:
    why = f"{type(error).__name__}: {error}"
    return ConfigurationError(
        f"module {name!r} cannot be imported", why=why, remedy="choreo --debug run ... shows where"
    )


def _unique(items: Iterable[Any]) -> list[Any]:
    """The items without repetition, by identity: two equal services are still two."""
    return list({id(item): item for item in items}.values())
