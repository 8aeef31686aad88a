"""The registry behind the Confluent API: Confluent's own, Apicurio (`/apis/ccompat/v7`), Karapace and others.

Passing trouble (no connection, no answer in time, 429, 5xx, a page that is no registry's) is told apart from what
the registry really said: only its own "not found" may make a record undecodable.
"""

from __future__ import annotations

import json
import os
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx2

from choreo.errors import ConfigurationError, IncompatibleSchemaError, RegistryUnavailableError, SchemaNotFoundError
from choreo.wire.registry import Schema

_TIMEOUT = 10.0
_TYPE = "application/vnd.schemaregistry.v1+json"
_NOT_FOUND = range(40400, 40500)
"""The API's error codes for a subject, version or schema that is not there."""


class HttpRegistry:
    """A Confluent-API registry.

    Args:
        url: its address; may carry `user:password@`. Without, CHOREO_REGISTRY_USER and CHOREO_REGISTRY_PASSWORD are
            used if they are set.
    """

    def __init__(self, url: str) -> None:
        address = httpx2.URL(url)
        user = address.username or os.environ.get("CHOREO_REGISTRY_USER", "")
        password = address.password or os.environ.get("CHOREO_REGISTRY_PASSWORD", "")
        self._url = str(address.copy_with(username=None, password=None)).rstrip("/")
        self._client = httpx2.AsyncClient(
            auth=(user, password) if user else None,
            timeout=_TIMEOUT,
            headers={"Accept": f"{_TYPE}, application/json", "Content-Type": _TYPE},
        )
        self._schemas: dict[int | str, Any] = {}

    def address(self, schema_id: int) -> str:
        """Where anybody may read the schema."""
        return f"{self._url}/schemas/ids/{schema_id}"

    async def register(self, subject: str, schema: Schema) -> int:
        """The id of the schema; registers it if need be."""
        what = f"schema {schema.get('name')} of subject {subject}"
        body = {"schema": json.dumps(schema), "schemaType": "AVRO"}
        answer = await self._call("POST", f"/subjects/{quote(subject, safe='')}/versions", what, body)
        if answer is None:
            raise ConfigurationError(f"{self._url} has no subjects", remedy="check CHOREO_REGISTRY's path")
        return int(self._part(answer, "id"))

    async def schema(self, schema_id: int | str) -> Any:
        """The schema of an id or GUID."""
        if schema_id not in self._schemas:
            kind = "ids" if isinstance(schema_id, int) else "guids"
            answer = await self._call("GET", f"/schemas/{kind}/{quote(str(schema_id))}", f"schema {schema_id}")
            if answer is None:
                raise SchemaNotFoundError(
                    f"schema {schema_id} is not in the registry {self._url}",
                    remedy="check that the record's writer uses the same registry",
                )
            self._schemas[schema_id] = self._parsed(answer)
        return self._schemas[schema_id]

    async def versions(self, subject: str) -> list[Schema]:
        """All versions, oldest first."""
        path = f"/subjects/{quote(subject, safe='')}/versions"
        numbers = await self._call("GET", path, f"subject {subject}") or []
        answers = [
            await self._call("GET", f"{path}/{number}", f"version {number} of {subject}") for number in sorted(numbers)
        ]
        return [self._parsed(answer) for answer in answers if answer is not None]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _call(self, method: str, path: str, what: str, body: Any = None) -> Any:
        """The decoded answer; None for the registry's own "not found"."""
        try:
            response = await self._client.request(method, self._url + path, json=body)
        except httpx2.HTTPError as error:
            raise self._unavailable(what, f"{type(error).__name__} {error}".strip()) from None
        status, answer = response.status_code, _json_of(response)
        known = answer if isinstance(answer, dict) else {}
        message = known.get("message", "")
        # Registries that know no GUIDs have no such path: whatever their 404 says, it will not change.
        if status == HTTPStatus.NOT_FOUND and (
            known.get("error_code") in _NOT_FOUND or path.startswith("/schemas/guids/")
        ):
            return None
        if status == HTTPStatus.OK and answer is not None:
            return answer
        if status in {409, 422}:
            raise IncompatibleSchemaError(f"the registry {self._url} refuses {what}", why=message or f"HTTP {status}")
        if status in {401, 403}:
            raise ConfigurationError(
                f"the registry {self._url} denies access to {what} (HTTP {status})",
                remedy="set CHOREO_REGISTRY_USER and CHOREO_REGISTRY_PASSWORD, or give that user the right",
            )
        raise self._unavailable(what, f"HTTP {status} {message}".strip())

    def _parsed(self, answer: Any) -> Any:
        """The schema in an answer. JSON text of a primitive type may be the bare name."""
        text = self._part(answer, "schema")
        try:
            return json.loads(text)
        except ValueError:
            return text

    def _part(self, answer: Any, name: str) -> Any:
        if not isinstance(answer, dict) or name not in answer:
            raise self._unavailable("an answer", f"it has no {name!r}")
        return answer[name]

    def _unavailable(self, what: str, why: str) -> RegistryUnavailableError:
        remedy = "check CHOREO_REGISTRY and that the registry is up; it is asked again"
        return RegistryUnavailableError(f"the registry {self._url} gave no answer about {what}", why=why, remedy=remedy)


def _json_of(response: httpx2.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return None
