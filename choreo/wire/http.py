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
    """A Confluent-API registry. Its address may carry `user:password@`; CHOREO_REGISTRY_USER and _PASSWORD also do."""

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
        schema_id = await self._call("POST", f"/subjects/{quote(subject, safe='')}/versions", what, "id", body)
        if schema_id is None:
            raise ConfigurationError(f"{self._url} has no subjects", remedy="check CHOREO_REGISTRY's path")
        return int(schema_id)

    async def schema(self, schema_id: int | str) -> Any:
        """The schema of an id or GUID; asked for once."""
        if schema_id not in self._schemas:
            kind = "ids" if isinstance(schema_id, int) else "guids"
            text = await self._call("GET", f"/schemas/{kind}/{schema_id}", f"schema {schema_id}", "schema")
            if text is None:
                what = f"schema {schema_id} is not in the registry {self._url}"
                raise SchemaNotFoundError(what, remedy="check that the record's writer uses the same registry")
            self._schemas[schema_id] = _json_of(text) or text  # a primitive type may be its bare name
        return self._schemas[schema_id]

    async def versions(self, subject: str) -> list[Schema]:
        """All versions, oldest first."""
        path = f"/subjects/{quote(subject, safe='')}/versions"
        what = f"subject {subject}"
        numbers = sorted(await self._call("GET", path, what) or [])
        texts = [await self._call("GET", f"{path}/{number}", what, "schema") for number in numbers]
        return [json.loads(text) for text in texts if text is not None]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _call(self, method: str, path: str, what: str, part: str = "", body: Any = None) -> Any:
        """This part of the decoded answer, or the list that it is; None for the registry's own "not found"."""
        try:
            response = await self._client.request(method, self._url + path, json=body)
        except httpx2.HTTPError as error:
            raise self._unavailable(what, f"{type(error).__name__} {error}".strip()) from None
        status, answer = response.status_code, _json_of(response.text)
        said = answer if isinstance(answer, dict) else {}
        why = f"HTTP {status} {said.get('message', '')}".strip()
        # Registries that know no GUIDs have no such path: whatever their 404 says, it will not change.
        if status == HTTPStatus.NOT_FOUND and (said.get("error_code") in _NOT_FOUND or "/schemas/guids/" in path):
            return None
        if status in {409, 422}:
            raise IncompatibleSchemaError(f"the registry {self._url} refuses {what}", why=why)
        if status in {401, 403}:
            remedy = "set CHOREO_REGISTRY_USER and CHOREO_REGISTRY_PASSWORD, or give that user the right"
            raise ConfigurationError(f"the registry {self._url} denies access to {what}", why=why, remedy=remedy)
        if status != HTTPStatus.OK or not (part in said if part else isinstance(answer, list)):
            raise self._unavailable(what, why)
        return said[part] if part else answer

    def _unavailable(self, what: str, why: str) -> RegistryUnavailableError:
        remedy = "check CHOREO_REGISTRY and that the registry is up; it is asked again"
        return RegistryUnavailableError(f"the registry {self._url} gave no answer about {what}", why=why, remedy=remedy)


def _json_of(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
