#!/usr/bin/env bash
# Runs the suites that depend on the version of Postgres on each of the versions
# given: matrix.sh [VERSION…]. What go test gets besides, or instead of the packages,
# is in ARGS. Prints one line per version at the end; exits 1 when one failed.
set -uo pipefail
cd "$(dirname "$0")/.."

versions=("$@")
[ $# -gt 0 ] || versions=(14 15 16 17 18)

read -ra arguments <<<"${ARGS:-}"
packages=()
case " ${ARGS:-}" in
  *" ./"* | *" lockstep/"*) ;;
  *)
    for dir in internal/capture engine internal/torture; do
      if [ -d "$dir" ]; then packages+=("./$dir/..."); fi
    done
    ;;
esac

lines=()
failed=0
for version in "${versions[@]}"; do
  if ! bin=$(scripts/postgres.sh "$version"); then
    lines+=("$version  no binaries")
    failed=1
    continue
  fi
  full=$("$bin/postgres" --version | sed -n 's/.*(PostgreSQL) \([^ ]*\).*/\1/p')
  echo "== Postgres $full in $bin"
  began=$SECONDS
  # Not from go's cache: the binaries behind a directory's name may be others by now.
  if LOCKSTEP_PG_BIN=$bin go test -count=1 -timeout 30m "${packages[@]}" "${arguments[@]}"; then
    lines+=("$full  ok  $((SECONDS - began)) s")
  else
    lines+=("$full  FAILED  $((SECONDS - began)) s")
    failed=1
  fi
done

echo
for line in "${lines[@]}"; do echo "Postgres $line"; done
exit "$failed"
