"""Kafka's access rights as rows, and the command that grants one."""

from __future__ import annotations

import shlex
from typing import Literal, NamedTuple, TypeAlias

Operation: TypeAlias = Literal["Read", "Write", "Describe", "Create", "Alter", "AlterConfigs", "DescribeConfigs"]
Kind: TypeAlias = Literal["topic", "group", "transactional-id"]


class Right(NamedTuple):
    """What may be done to what; with `prefixed` to all whose names begin so. Read and Write imply Describe."""

    operation: Operation
    kind: Kind
    name: str
    prefixed: bool = False

    def command(self, principal: str, bootstrap: str = "BROKER") -> str:
        """The `kafka-acls` command that grants it."""
        resource = [f"--{self.kind}", self.name, *(["--resource-pattern-type", "prefixed"] if self.prefixed else [])]
        granted = ["--add", "--allow-principal", principal, "--operation", self.operation]
        return shlex.join(["kafka-acls", "--bootstrap-server", bootstrap, *granted, *resource])
