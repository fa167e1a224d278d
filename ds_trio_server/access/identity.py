"""Whose a request is: what access control leaves for quotas, logs and rights by owner."""

from collections.abc import Sequence
from typing import NamedTuple

TOKEN, CERTIFICATE, LINK, NONE = "token", "certificate", "link", "none"


class Identity(NamedTuple):
    """Who asks: a `name` in the access file or certificate (of a link: its key's id), and the `kind` of proof."""

    name: str
    kind: str


ANYBODY = Identity("", NONE)
"""Nobody has proved anything, and nobody needed to."""


def without_access(certified: Sequence[str]) -> Identity:
    """Who asks a server that has no access file: its certificate's name, or ANYBODY."""
    return Identity(certified[0], CERTIFICATE) if certified else ANYBODY
