"""What runs inside the sandbox: the cells of one submission, then its functions on the instances that the grader sent.

It shares its process with the submission, which may change anything in it. So it decides nothing: it writes what the
functions return, as numbers, one JSON object per line, and the grader outside compares. It knows no expected value.

The request on the standard input: ``{"path", "cells": [[name, source], ...], "calls": [...], "cell_seconds",
"call_seconds"}``; a call has a part, a check, a number, the name of a function, and its arguments, each as ``["array", nested
list]`` or ``["value", number]``; ``rows`` is the place of the argument that holds one point per row, or null.
"""

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
import traceback

PATIENCE = 3


class TooLong(BaseException):
    """Not an Exception, so that the ``except Exception`` of a submission does not stop it."""


@contextlib.contextmanager
def deadline(seconds, clock=time.monotonic, processor=time.process_time):
    """Raise TooLong after ``seconds`` of processor time, or PATIENCE times as many on the clock: others may hold the processor.

    Again and again in case it is caught.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return
    begin, used = clock(), processor()

    def ring(number, frame):
        if processor() - used >= seconds or clock() - begin >= PATIENCE * seconds:
            raise TooLong(f"took longer than {seconds:g} s")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def words(error):
    """The error in at most a few hundred characters, with the last line of a cell that it passed through."""
    try:
        text = f"{type(error).__name__}: {error}".rstrip(": ")
        lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith("<cell")]
        told = (text[:300] + (f", in the line: {lines[-1][:200]}" if lines else ""))[:500]
        return told.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair cannot be written
    except BaseException:
        return "an error without a message"


class Shell:
    """Stands for IPython in a cell that uses it: the code below %%time or the like runs, everything else does nothing."""

    def __init__(self, namespace):
        self.namespace = namespace

    def run_cell_magic(self, name, line, body):
        exec(compile(body, f"<%%{name}>", "exec"), self.namespace)

    def __getattr__(self, name):
        return lambda *arguments, **options: None


def without_magics(source):
    """The source as Python: a notebook may have lines such as %matplotlib or !pip."""
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell(source)


def run_cells(cells, namespace, seconds, say):
    import linecache

    for name, source in cells:
        begin, problem, file = time.monotonic(), None, f"<cell {name}>"
        try:
            try:
                code = compile(source, file, "exec")
            except SyntaxError:
                source = without_magics(source)
                code = compile(source, file, "exec")
            linecache.cache[file] = (len(source), None, source.splitlines(True), file)
            with deadline(seconds), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                exec(code, namespace)
        except NotImplementedError as error:
            problem = "unsolved" if not str(error) else words(error)
        except BaseException as error:
            problem = words(error)
        say({"cell": name, "error": problem, "seconds": round(time.monotonic() - begin, 3)})


def numbers(value):
    """Nested lists of numbers from what a function may return: an array or tensor of any type, a number, a list of them."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().double().numpy()
    if isinstance(value, (tuple, list)):
        return [numbers(entry) for entry in value]
    if hasattr(value, "tolist"):
        value = value.tolist()
    return value if isinstance(value, list) else float(value)


def ask(function, arguments, rows):
    """The value of the function, given tensors or else arrays, all points at once or else one by one."""
    import numpy

    arrays = [numpy.array(a, dtype=float) if kind == "array" else a for kind, a in arguments]
    ways = [arrays]
    with contextlib.suppress(ImportError):
        import torch

        ways.insert(0, [torch.from_numpy(a.copy()) if isinstance(a, numpy.ndarray) else a for a in arrays])
    first = None
    for single in (False, True):
        if single and rows is None:
            break
        for way in ways:
            try:
                if not single:
                    found = numbers(function(*way))
                    fits = rows is None or numpy.asarray(found).shape[:1] == (len(way[rows]),)
                else:
                    found = [numbers(function(*way[:rows], point, *way[rows + 1 :])) for point in way[rows]]
                    fits = True
                if fits:
                    return found
                first = first or ValueError(f"{len(way[rows])} points gave a result of shape {numpy.asarray(found).shape}")
            except NotImplementedError:
                raise
            except Exception as error:
                first = first or error
    raise first


def main(stream):
    request = json.loads(sys.stdin.read())
    # The answers leave by a descriptor of their own; what the submission prints goes nowhere.
    out, nowhere = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    sys.path[:0] = request["path"]
    lock = threading.Lock()

    def say(record):
        line = (json.dumps(record) + "\n").encode()
        with lock:
            while line:
                line = line[os.write(out, line) :]

    say({"started": True})
    import types

    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module  # dataclasses and pickles look their module up
    namespace = module.__dict__
    namespace.update(display=lambda *a, **k: None, get_ipython=lambda: Shell(namespace))
    run_cells(request["cells"], namespace, request["cell_seconds"], say)
    slow = set()
    for call in request["calls"]:
        record = {"part": call["part"], "check": call["check"], "case": call["case"]}
        try:
            if call["function"] in slow:
                raise TooLong(f"took longer than {request['call_seconds']:g} s")
            if call["function"] not in namespace:
                raise NameError(f"the function {call['function']} is not defined")
            with deadline(request["call_seconds"]), contextlib.redirect_stdout(io.StringIO()):
                record["value"] = ask(namespace[call["function"]], call["arguments"], call["rows"])
        except NotImplementedError as error:
            record["error"] = words(error) if str(error) else "unsolved"
        except BaseException as error:
            slow.update({call["function"]} if isinstance(error, TooLong) else ())
            record["error"] = words(error)
        try:
            say(record)
        except (TypeError, ValueError) as error:
            say({"part": call["part"], "check": call["check"], "case": call["case"], "error": words(error)})
    say({"ended": True})
    os._exit(0)


if __name__ == "__main__":
    main(sys.stdin)
