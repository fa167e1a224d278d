"""Runs an example with some of its configuration changed, on MicroPython: run.py MODULE NAME=VALUE... [ARGUMENT...]"""

import sys

module = __import__(sys.argv[1])
arguments = []
for word in sys.argv[2:]:
    name, mark, value = word.partition("=")
    if mark and name.isupper():
        getattr(module, name)  # it must be there
        setattr(module, name, eval(value))
    else:
        arguments.append(word)
module.main(*arguments)
