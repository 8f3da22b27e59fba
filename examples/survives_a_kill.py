"""An update survives `kill -9`: a process accepts it and is killed at once, and the next process delivers it."""

import os
import signal
import subprocess
import sys

import otel_metadata as om

SPOOL = "otel_spool/spool.db"


def first_life() -> None:
    om.configure("sqlite:///survives.db", spool=SPOOL)
    with om.start_span("job") as job:
        job.update(metadata={"step": 1})
    om.flush()  # the span is stored; its verdict comes afterwards
    print("the verdict went", om.update_span(job, metadata={"verdict": "correct"}).route, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def second_life() -> None:
    pipeline = om.configure("sqlite:///survives.db", spool=SPOOL)
    om.flush()
    print("taken over:", pipeline.stats().destinations["sqlite"].adopted)
    with om.Client("sqlite:///survives.db") as client:
        (job,) = client.spans.list()
    print(job.name, dict(job.metadata))


if __name__ == "__main__":
    if sys.argv[1:] == ["first"]:
        first_life()
    else:
        subprocess.run([sys.executable, __file__, "first"], check=False)
        second_life()
