"""Runs portable tests, or imports modules, on MicroPython; started by tests/test_micropython.py.

    micropython run_micropython.py ROOT test FILE        run every test_* function of FILE (relative to ROOT)
    micropython run_micropython.py ROOT import MODULE    import MODULE

Ends with status 0 only when all went well and, for tests, at least one ran. Failures go to stdout with
MicroPython's own traceback.
"""

import gc
import sys


def report(name, exc):
    print("FAILED", name)
    sys.print_exception(exc, sys.stdout)


def load(name):
    module = __import__(name)
    for part in name.split(".")[1:]:
        module = getattr(module, part)
    return module


def run_file(root, path):
    folder, _, base = path.rpartition("/")
    sys.path.insert(0, root + "/" + folder)
    module = load(base[: -len(".py")])
    passed = failed = 0
    for name in sorted(dir(module)):
        test = getattr(module, name)
        if not name.startswith("test_") or not callable(test):
            continue
        gc.collect()
        try:
            test()
            passed += 1
        except Exception as exc:
            failed += 1
            report(name, exc)
    print("%d passed, %d failed" % (passed, failed))
    if not passed and not failed:
        print("no tests in", path)
    return 0 if passed and not failed else 1


def main():
    root, action, what = sys.argv[1:]
    # Only the checkout and what is built into MicroPython: nothing the machine happens to have installed.
    sys.path[:] = [root + "/tests/core", root, root + "/micro", ".frozen"]
    try:
        if action == "test":
            return run_file(root, what)
        load(what)
        return 0
    except Exception as exc:
        report(what, exc)
        return 1


sys.exit(main())
