"""The command `ds`. `main.main(argv)` runs it and returns its exit status; nothing else of this room is for others."""

__all__ = ["main"]
