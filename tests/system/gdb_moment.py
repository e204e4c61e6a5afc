"""Runs inside gdb: stops the program at one exact moment and kills it there with SIGKILL.

gdb -nx -batch -p PID -x gdb_moment.py, with the environment
  MOMENT  one of the names below
  LSN     only what lies above this LSN counts
  ARMED   a file that is made as soon as the program runs towards the moment
The exit code is 0 only if the moment came and the program was killed in it.
"""

import os

import gdb

MOMENT = os.environ["MOMENT"]
LSN = int(os.environ["LSN"])


def function(expression):
    """The name of the function that a member of a constant interface points to."""
    return str(gdb.parse_and_eval(expression)).split("<")[1].split(">")[0].split("+")[0]


def is_called_from(folder):
    frame = gdb.newest_frame()
    while frame is not None:
        line = frame.find_sal()
        if line.symtab is not None and folder in line.symtab.filename:
            return True
        frame = frame.older()
    return False


class Moment(gdb.Breakpoint):
    """A breakpoint with a question: is this the moment?"""

    def __init__(self, where, question):
        super().__init__(where, internal=False)
        self.question = question

    def stop(self):
        return bool(self.question())


def value(expression):
    return int(gdb.parse_and_eval(expression))


def position_is_above(position):
    return value(f"{position} != 0") and value(f"{position}[0].id.commit_lsn") > LSN


def after(where, question):
    """Stops where the function returns."""
    class Return(gdb.FinishBreakpoint):
        def stop(self):
            return True

    class Entry(Moment):
        def stop(self):
            if self.question():
                Return(gdb.newest_frame(), internal=True)
            return False
    Entry(where, question)


def sync_of(folder, is_after):
    for name in ("fsync", "fdatasync"):
        if is_after:
            after(name, lambda: is_called_from(folder))
        else:
            Moment(name, lambda: is_called_from(folder))


def new_records():
    return value("batch->n") > 0


MOMENTS = {
    # received, not appended
    "append": lambda: Moment(function("cdc_buffer_local.append"), new_records),
    # appended, not durable
    "buffer_sync": lambda: sync_of("cdc/buffer/", False),
    # durable, not yet published
    "buffer_synced": lambda: sync_of("cdc/buffer/", True),
    # durable and published, not confirmed
    "confirm": lambda: Moment("cdc_source_status", lambda: value("flush") > LSN),
    # confirmed (or nearly), nothing handed to the sink
    "submit": lambda: Moment(function("sink_webhook.submit"), lambda: True),
    # answered, not checkpointed
    "checkpoint": lambda: Moment("cdc_store_checkpoint",
                                 lambda: position_is_above("c->streams")),
    # checkpointed in memory, not durable
    "store_sync": lambda: sync_of("cdc/store/", False),
    # checkpoint durable, nothing evicted
    "evict": lambda: Moment(function("cdc_buffer_local.commit"),
                            lambda: position_is_above("position->streams")),
}

gdb.execute("set pagination off")
gdb.execute("set confirm off")
gdb.execute("handle SIGPIPE SIGTERM SIGINT nostop noprint pass")
MOMENTS[MOMENT]()
with open(os.environ["ARMED"], "w", encoding="ascii") as armed:
    armed.write("armed\n")
gdb.execute("continue")
print("=== the moment:")
gdb.execute("bt 12")
gdb.execute("kill")
