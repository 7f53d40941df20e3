#!/bin/sh
# next → work → ack, until you stop it. Needs curl and jq (1.7 or newer keeps large numbers exact).
QUEUE='{{.Queue}}'

call() { # call VERB BODY
  curl{{if .Globoff}} --globoff{{end}} --silent --show-error --fail-with-body --max-time 60 \
    -H "Authorization: Bearer $LOCKSTEP_TOKEN" -H 'Content-Type: application/json' \
    --data-binary "$2" "$QUEUE/$1"
}

work() { # work CHANGE: your own code. Fail, and the change comes again, ever later.
  printf '%s\n' "$1" | jq -c '{action, record, seq: .metadata.seq}'
}

while :; do
  # One at a time: with several, give the rest back when one fails.
  if ! batch=$(call next '{"batch_size": 1, "wait_for": "20s"}'); then
    echo "next: $batch; trying again soon" >&2
    sleep 2
    continue
  fi
  change=$(printf '%s\n' "$batch" | jq -c '.data[0] // empty')
  [ -n "$change" ] || continue # none came in 20 seconds
  token=$(printf '%s\n' "$change" | jq -r '.ack_token')
  if work "$change"; then
    call ack "{\"ack_tokens\": [\"$token\"]}" || echo "the ack failed: the change comes again" >&2
  else
    call nack "{\"ack_tokens\": [\"$token\"], \"reason\": \"work failed\"}" || :
  fi
done
