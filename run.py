"""Set up dynot_lite and run it: python3 run.py COMMAND [OPTIONS]

  python3 run.py reproduce    run all notebooks anew, print the table of claims (PASS or FAIL)
  python3 run.py test         run all tests, and the notebooks against their stored outputs
  python3 run.py execute      run committed notebooks in place, after an edit
  python3 run.py claims       print the table of claims
  python3 run.py book         build the site of the notebooks and of the package's reference
  python3 run.py course       release problem sets, grade submissions
  python3 run.py data         fetch a data set (optional)
  python3 run.py train        train a flow of your own images
  python3 run.py peers        install the libraries that some benchmarks compare with (optional)

Needs Python 3.11 or later and nothing else. The first call makes the virtual environment .venv beside this file and installs
torch and the packages of hashes.txt into it, which takes minutes; later calls do so only if that file, pyproject.toml or
constraints.txt changed. Everything after that is "python -m dynot_lite COMMAND [OPTIONS]" in that environment; "COMMAND --help"
tells more."""

# This file must be readable for old versions of Python, too, so that they can say that they are too old.
from __future__ import print_function

import hashlib
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
VENV = os.path.join(HERE, ".venv")
PYTHON = os.path.join(VENV, "Scripts", "python.exe") if os.name == "nt" else os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "dynot_lite.stamp")

FILES = ("pyproject.toml", "constraints.txt", "hashes.txt")
# Every file is compared with hashes.txt, which lists all that is needed. Two things are not: torch, of which each index has its
# own file, with what only its builds with CUDA need; and this folder, which is built with the setuptools of that list.
STEPS = (
    ("--require-hashes", "--no-deps", "-r", "hashes.txt"),
    ("-c", "constraints.txt", "torch"),
    ("--no-deps", "--no-build-isolation", "-e", "."),
)
BOOK = ("-c", "constraints.txt", "--no-build-isolation", "-e", ".[book]")

# What pip's last words mean, for who does not read pip.
CAUSES = (
    (
        ("DO NOT MATCH THE HASHES",),
        "a package is not the file that hashes.txt names: it was damaged on its way, or is another under the same name",
    ),
    (("No space left on device", "Errno 28", "disk quota"), "the disk is full"),
    (("Read-only file system", "Errno 30", "Permission denied", "Errno 13"), "the folder " + VENV + " cannot be written to"),
    (
        (
            "NewConnectionError",
            "NameResolutionError",
            "ConnectTimeoutError",
            "ReadTimeoutError",
            "Network is unreachable",
            "ProxyError",
        ),
        "the package index cannot be reached: no network, or pip needs to be told of a proxy or another index",
    ),
)


class Trouble(Exception):
    """What stops the set-up, in one sentence."""


def wanted(extras):
    """What must be installed and where, as a hash, and the extras: a moved or copied environment is not this folder's."""
    digest = hashlib.sha256(HERE.encode())
    for name in FILES:
        with open(os.path.join(HERE, name), "rb") as stream:
            digest.update(stream.read())
    return " ".join([digest.hexdigest()] + sorted(extras))


def stamped():
    """What was installed when that was last completed; empty if it never was."""
    try:
        with open(STAMP) as stream:
            return stream.read()
    except OSError:
        return ""


def installed():
    """What is installed, if that was completed and still imports this folder's package; else None."""
    code = "import dynot_lite, importlib.util as u, sys; print(dynot_lite.__file__); sys.exit(u.find_spec('torch') is None)"
    found = ask(code)
    ours = os.path.join(HERE, "dynot_lite")
    return stamped() if found and os.path.realpath(os.path.dirname(found)) == ours else None


def ask(code):
    """What the environment's interpreter prints when it runs ``code``; None if it is missing, broken or fails."""
    try:
        # In the folder of the environment: an import must come from what is installed, not from the working directory.
        return subprocess.check_output([PYTHON, "-I", "-c", code], cwd=VENV, stderr=subprocess.DEVNULL).decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def install(extras):
    """Make .venv, unless there is a working one of this folder, and install into it."""
    stamp = wanted(extras)
    if not os.access(HERE, os.W_OK):
        raise Trouble(HERE + " is read-only, and the environment is made in it: copy it to where you may write")
    if os.path.exists(STAMP):
        os.remove(STAMP)
    # Of a moved environment the scripts still name the old place.
    here = ask("import os, pip, sys; print(os.path.realpath(sys.prefix))") == VENV
    if not here or not moved_here():
        print("dynot_lite: making the environment " + VENV, flush=True)
        run([sys.executable, "-m", "venv", "--clear", VENV], "on Debian and Ubuntu: apt install python3-venv")
        with open(os.path.join(VENV, "made_in"), "w") as stream:
            stream.write(HERE)
    print("dynot_lite: installing packages", flush=True)
    for step in STEPS + (BOOK,) * ("book" in extras):
        run([PYTHON, "-m", "pip", "install"] + list(step), "see pip's words above; the same command tries again")
    with open(STAMP, "w") as stream:
        stream.write(stamp)


def moved_here():
    """Whether the environment was made in this folder, not in another one that it was moved or copied with."""
    try:
        with open(os.path.join(VENV, "made_in")) as stream:
            return stream.read() == HERE
    except OSError:
        return False


def run(command, otherwise):
    """Run a step of the set-up; if it fails, raise Trouble with the cause where its words tell it. Bars stay bars."""
    process = subprocess.Popen(command, cwd=HERE, stderr=subprocess.PIPE)
    words = []
    with process.stderr:
        for line in iter(process.stderr.readline, b""):
            words.append(line.decode("utf-8", "replace"))
            sys.stderr.write(words[-1])
            sys.stderr.flush()
    if process.wait():
        said = "".join(words)
        causes = [cause for signs, cause in CAUSES if any(sign in said for sign in signs)]
        raise Trouble("the set-up failed: " + (causes[0] if causes else otherwise))


def hand_over(arguments):
    """Become ``python -m dynot_lite``, of this folder wherever it is called from; its exit code is ours."""
    command = [PYTHON, "-P", "-m", "dynot_lite"] + arguments
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
        # Every command needs the first three; what one of them needed before stays.
        extras = ["notebooks", "course", "test"] + (["book"] if "book" in [arguments[0]] + stamped().split() else [])
        if installed() != wanted(extras):
            install(extras)
    except KeyboardInterrupt:
        print("\ndynot_lite: interrupted; the same command goes on", file=sys.stderr)
        return 130
    except (Trouble, OSError) as trouble:
        full = getattr(trouble, "errno", None) == 28
        print("dynot_lite: %s" % ("the set-up failed: the disk is full" if full else trouble), file=sys.stderr)
        return 1
    return hand_over(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
