#!/usr/bin/env python3
"""A worker that keeps a table of orders in SQLite. Python's standard library only.

1. A change is acked after it is committed, so that none is lost.
2. A change that comes again, or late, does nothing: the last seq of each row is kept
   in the same transaction.
3. What fails is given back and comes again, ever later; only its own row waits for it.
4. SIGTERM and Ctrl-C end it: the change that was begun is finished, the others are
   given back at once.
"""

import json
import os
import signal
import sqlite3
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

SERVER = os.environ.get("LOCKSTEP_SERVER", "http://127.0.0.1:7300").rstrip("/")
TOKEN = os.environ.get("LOCKSTEP_TOKEN")
CONSUMER = os.environ.get("CONSUMER", "orders")
DATABASE = os.environ.get("SQLITE", "orders.db")

ACK_WAIT = float(os.environ.get("ACK_WAIT", "30"))  # seconds: that of the consumer

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS done (id TEXT PRIMARY KEY, seq INTEGER NOT NULL);
"""


class Refused(Exception):
    """The node answered, and not with a success."""

    def __init__(self, status, problem):
        super().__init__(f"HTTP {status}: {problem.get('detail', problem)}")
        self.stale = problem.get("stale", [])


def call(verb, body, timeout=30):
    """Calls the consumer's API. Returns the answer, None when it is empty."""
    request = urllib.request.Request(
        f"{SERVER}/v1/http-consumers/{urllib.parse.quote(CONSUMER, safe='')}/{verb}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    if TOKEN:
        request.add_header("Authorization", f"Bearer {TOKEN}")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            text = answer.read()
    except urllib.error.HTTPError as refusal:
        with refusal:
            text = refusal.read()
        try:
            problem = json.loads(text)
        except ValueError:
            problem = {}
        raise Refused(refusal.code, problem) from None
    return json.loads(text) if text else None


def settle(verb, changes, **more):
    """Acks, nacks or extends. Returns the tokens that are not ours any more."""
    tokens = [c["ack_token"] for c in changes]
    if not tokens:
        return set()
    for attempt in range(4):
        try:
            call(verb, {"ack_tokens": tokens, **more})
            return set()
        except Refused as refusal:
            if refusal.stale:  # the others are settled
                return set(refusal.stale)
            log(f"{verb}: {refusal}; the changes come again")
            return set()
        except OSError as error:
            # Nobody knows whether it was heard. To ack again does no harm; what was not
            # settled comes again when its lease ends.
            log(f"{verb}: {error}")
            time.sleep(0.2 * 2**attempt)
    return set()


def apply(db, change):
    """Has the effect of a change, once."""
    action, record, meta = change["action"], change["record"], change["metadata"]
    with db:  # one transaction: committed at the end, rolled back by an exception
        if action == "truncate":
            db.execute("DELETE FROM orders")
            return
        if action == "gap":  # changes may be missing: a backfill of the consumer brings what there is
            return
        row, seq = json.dumps(meta["record_pks"]), meta["seq"]
        newer = db.execute(
            "INSERT INTO done VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET seq = excluded.seq WHERE seq < excluded.seq",
            (row, seq),
        )
        if newer.rowcount == 0:
            return  # this one, or one after it, was applied before
        if action == "delete":
            db.execute("DELETE FROM orders WHERE id = ?", (row,))
            return
        # insert, update, and read: a row that existed before, sent by a backfill
        db.execute("INSERT OR REPLACE INTO orders VALUES (?, ?)", (row, json.dumps(record, ensure_ascii=False)))


def work(db, changes, stop):
    """Applies a batch in its order. What was not applied is given back."""
    done, extended = [], time.monotonic()
    while changes and not stop.is_set():
        if time.monotonic() - extended > ACK_WAIT / 3:  # it takes long: keep what is not settled
            gone = settle("extend", done + changes, by=f"{int(ACK_WAIT * 1000)}ms")
            done = [c for c in done if c["ack_token"] not in gone]
            changes = [c for c in changes if c["ack_token"] not in gone]
            extended = time.monotonic()
            continue
        change, changes = changes[0], changes[1:]
        try:
            apply(db, change)
            done.append(change)
        except Exception as error:
            log(f"seq {change['metadata']['seq']}, attempt {change['attempt']}: {error}")
            settle("nack", [change], reason=str(error))
            # The later changes of its row went back with it.
            row = row_of(change)
            changes = [c for c in changes if row_of(c) != row]
    for token in settle("ack", done):
        log(f"the ack of {token[:12]} came too late: its change comes again, and does nothing")
    settle("nack", changes, release=True)  # without an attempt being counted


def row_of(change):
    meta = change["metadata"]
    return meta["table_schema"], meta["table_name"], tuple(meta["record_pks"])


def log(text):
    print(text, file=sys.stderr, flush=True)


def main():
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    db = sqlite3.connect(DATABASE)
    db.executescript(SCHEMA)
    log(f"working on what consumer {CONSUMER} gets")
    while not stop.is_set():
        try:
            # The call itself waits for changes. Not for long, so that a signal need not wait.
            batch = call("next", {"batch_size": 100, "wait_for": "2s"})
        except (Refused, OSError) as error:
            log(f"next: {error}; trying again soon")
            stop.wait(2)
            continue
        work(db, batch["data"], stop)
    db.close()


if __name__ == "__main__":
    main()
