#!/usr/bin/env bash
# Runs the tests that need somebody else's published clients: their versions are those
# that the tests name, and a test that is skipped fails. Needs node and npm.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$PWD/bin/clients
mkdir -p "$folder"
npm install --prefix "$folder" --no-audit --no-fund --no-save --ignore-scripts \
  stripe@23.1.0 octokit@5.0.5 @octokit/graphql-schema@15.26.1 \
  eventsource@5.1.5 standardwebhooks@1.1.1 svix@2.5.0 cloudevents@10.0.0 ws@8.23.0 \
  supabase-new@npm:@supabase/supabase-js@2.119.1 supabase-old@npm:@supabase/supabase-js@2.45.4 >&2

export STRIPE_SDK=$folder GITHUB_SDK=$folder SUPABASE_SDK=$folder EVENTSOURCE_SDK=$folder WEBHOOK_NODE=$folder
said=$(mktemp)
trap 'rm -f "$said"' EXIT
go test -count 1 -v -run 'Tour|GitHubsSchema|Supabase|ClientsOfTheDocs|ABrowserFollows|NodesLibraries|PythonVerifies' \
  ./sandbox/... ./source/github ./engine ./sink/webhook ./internal/realtime ./examples | tee "$said" | grep -E '^ *(---|ok|FAIL|panic)' || true
! grep -qE '^ *--- (FAIL|SKIP)|^FAIL|^panic' "$said"
