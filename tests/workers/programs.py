"""A program in a folder of its own, which is started, asked and ended; and what is in its store afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections import Counter

import otel_metadata as om

__all__ = ["Program", "environment", "stored"]


def environment(folder):
    """Return the environment of a program: its store and its home are in *folder*."""
    return {**os.environ, "STORE": f"sqlite:///{folder}/spans.db", "HOME": str(folder), "PYTHONPATH": str(folder)}


def stored(folder):
    """Return how often each span is there, by name, the process that opened it, and whether its late update arrived."""
    with om.Client(f"sqlite:///{folder}/spans.db") as client:
        spans = client.spans.list(limit=1_000)
    return Counter((span.name, span.metadata["process"], span.metadata.get("late")) for span in spans)


class Program:
    """A module of Python that runs until it gets SIGTERM; it may say at what address it listens.

    Attributes:
        log: What it said until now.
    """

    def __init__(self, folder, module, *arguments):
        self.folder = folder
        self.log = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=folder,
            env=environment(folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    @staticmethod
    def write(folder, name, text):
        """Write a module of the program."""
        (folder / name).write_text(textwrap.dedent(text))

    def address(self):
        """Return the address that it says that it listens at."""
        for line in self._process.stdout:
            self.log += line
            if found := re.search(r"Listening at: (http://\S+)", line):
                return found[1]
        raise AssertionError(self.log)

    def end(self):
        """Ask it to end; return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        self.log += self._process.communicate(timeout=120)[0]
        return self._process.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
