"""What an operator can set: one place for options, defaults, limits and their checks."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Config:
    """Limits and times of a server; sizes in bytes, times in seconds."""

    long_poll_timeout: float = 30.0
    sse_max: float = 60.0
    max_body: int = 16 * 1024 * 1024
    chunk: int = 1024 * 1024
    max_connections: int = 20_000
    max_per_client: int = 0
    """Connections that one address may have at once; 0 is no limit."""
    body_memory: int = 64 * 1024 * 1024
    """Bytes of request bodies held at once, over all connections."""
    head_timeout: float = 10.0
    """From the first byte of a head to its last."""
    body_timeout: float = 30.0
    """For a body, plus what its size takes at ``slowest_body``."""
    slowest_body: int = 512
    """Bytes a second below which a body counts as stalled."""
    idle_timeout: float = 75.0
    """How long a kept-alive connection may wait for its next request."""
    send_timeout: float = 30.0
    """How long a client may take nothing of a response."""
    grace: float = 10.0
    """How long a stop waits for what is in flight."""
    private: bool = False
    """Answers are for their client alone: access control is on."""

    def __post_init__(self) -> None:
        for name in ("long_poll_timeout", "sse_max", "head_timeout", "body_timeout", "idle_timeout"):
            if not 0 < getattr(self, name) <= 86400:
                raise ValueError(f"{name.replace('_', '-')} must be more than 0 and at most 86400 seconds")
        for name in ("max_body", "chunk", "body_memory"):
            if not 1 <= getattr(self, name) <= 1 << 30:
                raise ValueError(f"{name.replace('_', '-')} must be between 1 byte and 1 GiB")
        if self.max_per_client < 0:
            raise ValueError("max-per-client must be a number of connections, or 0 for no limit")
        if self.max_body > self.body_memory:
            object.__setattr__(self, "body_memory", self.max_body)
