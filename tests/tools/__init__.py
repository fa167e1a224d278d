"""What the tests start and fetch: our server, its peers, Node packages, MicroPython."""
