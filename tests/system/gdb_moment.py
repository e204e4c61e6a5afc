"""Runs inside gdb: stops the program at one exact moment and kills it there with SIGKILL.

gdb -nx -batch -p PID -x gdb_moment.py, with the environment
  MOMENT  one of the names below
  LSN     only what lies above this LSN counts
  ARMED   a file that is made as soon as the program runs towards the moment
The exit code is 0 only if the moment came, as it should be, and the program was killed in it.
"""

import os

import gdb

MOMENT = os.environ["MOMENT"]
FAULTS = []  # what should not have been so at the moment
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


def evict_behind_durable():
    """The buffer is told what it may evict, and not before the store's transaction is synced."""
    handed = Behind("cdc_store_checkpoint", lambda: position_is_above("c->streams"))
    synced = []

    class Return(gdb.FinishBreakpoint):
        def stop(self):
            synced.append(True)
            return False

    def enter():
        if handed.is_there and is_called_from("cdc/store/"):
            Return(gdb.newest_frame(), internal=True)
        return False

    def is_moment():
        if not position_is_above("position->streams"):
            return False
        if not synced:
            FAULTS.append("the checkpoint is not durable")
        return True
    for name in ("fsync", "fdatasync"):
        Moment(name, enter)
    Moment(function("cdc_buffer_local.commit"), is_moment)


def new_records():
    return value("batch->n") > 0


PUT, FAILED, DEAD, REFUSED, DONE = range(5)  # enum cdc_park_act


def writes(act):
    """Of cdc_store_park: is a change of this kind among those that are to be written?"""
    return any(value(f"changes[{i}].act") == act for i in range(min(value("n"), 100)))


class Behind:
    """Moments that count only behind another one."""

    def __init__(self, where, question):
        self.is_there = False
        Moment(where, lambda: self._note(question))

    def _note(self, question):
        self.is_there = self.is_there or bool(question())
        return False


def behind_parking(where, question=lambda: True):
    parking = Behind("cdc_store_park", lambda: writes(PUT))
    Moment(where, lambda: parking.is_there and question())


def behind_part(where):
    part = Behind("take_apart", lambda: True)
    Moment(where, lambda: part.is_there)


def behind_part_of_transaction(number, where):
    part = Behind("accept_job", lambda: value("lane->part") == number)
    Moment(where, lambda: part.is_there)


def inside_parking():
    """While the transaction of the store is on its way to the disk."""
    parking = Behind("cdc_store_park", lambda: writes(PUT))
    for name in ("fsync", "fdatasync"):
        Moment(name, lambda: parking.is_there and is_called_from("cdc/store/"))


def is_replayed():
    return value("slot->is_replay") != 0


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
    # answered, and the sink has not said so
    "answer": lambda: Moment("sink_http_outcome", lambda: True),
    # the sink has said so, and nothing has come of it
    "outcome": lambda: Moment("cdc_lanes_result", lambda: True),
    # its records are done, and a checkpoint is not due
    "done": lambda: after("accept_job", lambda: True),
    # a checkpoint is due, not handed over
    "checkpoint": lambda: Moment("cdc_store_checkpoint",
                                 lambda: position_is_above("c->streams")),
    # checkpointed in memory, not durable
    "store_sync": lambda: sync_of("cdc/store/", False),
    # durable, and nobody knows
    "store_synced": lambda: sync_of("cdc/store/", True),
    # checkpoint durable, nothing evicted
    "evict": evict_behind_durable,
    # the buffer knows that it may evict
    "evicted": lambda: after(function("cdc_buffer_local.commit"),
                             lambda: position_is_above("position->streams")),

    # half of the way to the one record that is refused
    "halving": lambda: Moment("lanes.c:submit", lambda: 1 < value("lane->suspects") < 6),
    # its trouble is proved, nothing is written
    "trouble": lambda: Moment("cdc_parking_take", lambda: True),
    # it is being written
    "park": lambda: Moment("cdc_store_park", lambda: writes(PUT)),
    "park_sync": inside_parking,
    # written, and the engine does not know
    "parked": lambda: after("cdc_store_park", lambda: writes(PUT)),
    # known, and no checkpoint has passed it
    "parked_checkpoint": lambda: behind_parking("cdc_store_checkpoint"),
    # the checkpoint that passes it is durable
    "parked_evict": lambda: behind_parking(function("cdc_buffer_local.commit")),

    # a part of a request was refused: nothing has come of it; the accepted ones are done, ...
    "part": lambda: Moment("take_apart", lambda: True),
    "part_done": lambda: after("take_apart", lambda: True),
    # ... and the first checkpoint is due
    "part_checkpoint": lambda: behind_part("cdc_store_checkpoint"),
    "part_evict": lambda: behind_part(function("cdc_buffer_local.commit")),

    # two parts of a transaction are accepted, and the third is not sent
    "parts": lambda: after("accept_job", lambda: value("lane->part") == 2),
    # ... and a checkpoint is durable that it began before
    "parts_evict": lambda: behind_part_of_transaction(1, function("cdc_buffer_local.commit")),
    # all three are: nothing has come of the last one, or all, but no checkpoint
    "last_part": lambda: Moment("accept_job", lambda: value("lane->part") == 3),
    "last_part_done": lambda: after("accept_job", lambda: value("lane->part") == 3),
    "last_part_checkpoint": lambda: behind_part_of_transaction(3, "cdc_store_checkpoint"),

    # a parked record was accepted, and is still in the store
    "retry_answer": lambda: Moment("accept_slot", lambda: not is_replayed()),
    "erase": lambda: Moment("cdc_store_park", lambda: writes(DONE)),
    # it is not
    "erased": lambda: after("cdc_store_park", lambda: writes(DONE)),

    # a parked record was refused for the last time, and is no dead letter yet
    "refusal": lambda: Moment("note_record", lambda: value("act") == DEAD),
    "bury": lambda: Moment("cdc_store_park", lambda: writes(DEAD)),
    # it is one, and the next of its key has not been tried
    "buried": lambda: after("cdc_store_park", lambda: writes(DEAD)),

    # a dead letter is to be replayed: read, not sent; accepted, not erased; erased
    "replay_read": lambda: Moment("cdc_parking_send", lambda: value("p->reading->is_replay") != 0),
    "replay_answer": lambda: Moment("accept_slot", is_replayed),
    "replay_erase": lambda: Moment("cdc_store_park", lambda: writes(DONE)),
    "replay_erased": lambda: after("cdc_store_park", lambda: writes(DONE)),

    # the sync is to go back: taken up, decided, written, begun anew
    "back": lambda: Moment("go_back", lambda: True),
    "back_write": lambda: Moment("cdc_store_replay", lambda: True),
    "back_written": lambda: after("cdc_store_replay", lambda: True),
    "back_made": lambda: after("make_anew", lambda: True),
}

gdb.execute("set pagination off")
gdb.execute("set confirm off")
for library in ("libc", "libsqlite3"):  # what the moments are in, or called through
    gdb.execute(f"sharedlibrary {library}[.]so")
gdb.execute("handle SIGPIPE SIGTERM SIGINT nostop noprint pass")
MOMENTS[MOMENT]()
with open(os.environ["ARMED"], "w", encoding="ascii") as armed:
    armed.write("armed\n")
gdb.execute("continue")
print("=== the moment:")
gdb.execute("bt 12")
gdb.execute("kill")
if FAULTS:
    print(*FAULTS, sep="\n")
    gdb.execute("quit 1")
