#!/usr/bin/env bash
# Prints the path of a Chromium for the tests of pages, and installs the system's
# package first when this machine has none and we may. Prints nothing, and succeeds,
# where there is none to be had: those tests then say that they were skipped.
set -euo pipefail

find_one() {
  local name
  for name in "${LOCKSTEP_CHROMIUM:-}" chromium chromium-browser google-chrome chromium-headless-shell; do
    [ -n "$name" ] && command -v "$name" && return
  done
  return 1
}

install_one() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
  echo "chromium.sh: installing the system's chromium" >&2
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >&2
}

find_one || { install_one && find_one; } || echo "chromium.sh: there is no chromium: the tests of pages are skipped" >&2
