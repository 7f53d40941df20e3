# next → work → ack, until you stop it. Python's standard library only.
import json, os, sys, time, urllib.error, urllib.request

QUEUE = "{{.Queue}}"
TOKEN = os.environ.get("LOCKSTEP_TOKEN", "")


def call(verb, body):
    request = urllib.request.Request(
        f"{QUEUE}/{verb}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def work(change):
    """Your own code. Raise, and the change comes again, ever later.

    It may come twice: change["metadata"]["idempotency_key"] is the same then.
    """
    print(change["action"], change["metadata"]["table_name"], change["record"], flush=True)


def settle(verb, changes, **more):
    if changes:
        call(verb, {"ack_tokens": [c["ack_token"] for c in changes], **more})


while True:
    try:
        changes = call("next", {"batch_size": 100, "wait_for": "20s"})["data"]
        done = []
        for change in changes:
            try:
                work(change)
                done.append(change)
            except Exception as error:
                print(f"seq {change['metadata']['seq']}: {error}", file=sys.stderr)
                settle("nack", [change], reason=str(error))
                break  # the later ones of its row must not overtake it
        rest = changes[len(done) + 1:]
        settle("ack", done)
        settle("nack", rest, release=True)  # given back; no attempt is counted
    except urllib.error.HTTPError as refusal:  # what was not settled comes again
        print(f"HTTP {refusal.code}: {refusal.read().decode()}", file=sys.stderr)
        time.sleep(2)
    except OSError as error:
        print(f"{error}; trying again soon", file=sys.stderr)
        time.sleep(2)
