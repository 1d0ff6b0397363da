"""Set up dynot_lite and run it: python3 run.py COMMAND [OPTIONS]

  python3 run.py reproduce    run all notebooks anew, print the table of claims (PASS or FAIL)
  python3 run.py test         run all tests, and the notebooks against their stored outputs
  python3 run.py execute      run committed notebooks in place, after an edit
  python3 run.py claims       print the table of claims
  python3 run.py course       release problem sets, grade submissions
  python3 run.py peers        install the libraries that some benchmarks compare with (optional)

Needs Python 3.11 or later and nothing else. The first call makes the virtual environment .venv beside this file and installs
the packages of constraints.txt into it, which takes minutes; later calls do so only if pyproject.toml or constraints.txt
changed. Everything after that is "python -m dynot_lite COMMAND [OPTIONS]" in that environment; "COMMAND --help" tells more."""

# This file must be readable for old versions of Python, too, so that they can say that they are too old.
from __future__ import print_function

import hashlib
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(HERE, ".venv")
PYTHON = os.path.join(VENV, "Scripts", "python.exe") if os.name == "nt" else os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "dynot_lite.stamp")


def wanted():
    """What must be installed, as a hash of the files that say so."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        with open(os.path.join(HERE, name), "rb") as stream:
            digest.update(stream.read())
    return digest.hexdigest()


def installed():
    """The hash of what is installed, if that was completed."""
    if not (os.path.exists(PYTHON) and os.path.exists(STAMP)):
        return None
    with open(STAMP) as stream:
        return stream.read()


def install():
    """Make .venv, unless there is a working one, and install into it."""
    stamp = wanted()
    if os.path.exists(STAMP):
        os.remove(STAMP)
    if not os.path.exists(PYTHON) or subprocess.call([PYTHON, "-c", "import pip"], stderr=subprocess.DEVNULL):
        print("dynot_lite: making the environment " + VENV, flush=True)
        if subprocess.call([sys.executable, "-m", "venv", "--clear", VENV]):
            raise SystemExit("dynot_lite: cannot make a virtual environment (on Debian and Ubuntu: apt install python3-venv)")
    print("dynot_lite: installing packages", flush=True)
    code = subprocess.call([PYTHON, "-m", "pip", "install", "-c", "constraints.txt", "-e", ".[notebooks,course,test]"], cwd=HERE)
    if code:
        print("dynot_lite: the installation failed (see above); the same command tries again", file=sys.stderr)
        raise SystemExit(code)
    with open(STAMP, "w") as stream:
        stream.write(stamp)


def hand_over(arguments):
    """Become ``python -m dynot_lite``; its exit code is ours."""
    command = [PYTHON, "-m", "dynot_lite"] + arguments
    if os.name != "nt":
        os.execv(PYTHON, command)
    process = subprocess.Popen(command)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the other process has it, too, and cleans up
            pass


def main(arguments):
    if sys.version_info < (3, 11):
        found = "%s is Python %s" % (sys.executable, sys.version.split()[0])
        print("dynot_lite needs Python 3.11 or later; " + found, file=sys.stderr)
        return 2
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    try:
        if installed() != wanted():
            install()
    except KeyboardInterrupt:
        print("\ndynot_lite: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return hand_over(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
