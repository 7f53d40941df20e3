#!/usr/bin/env bash
# Copies what the console's pages load in a browser from the packages that
# internal/console/assets/package-lock.json names, with their licences. With --check it
# only says whether the copies are those: nothing of them is edited by hand.
set -euo pipefail
cd "$(dirname "$0")/../internal/console/assets"
npm ci --no-audit --no-fund --ignore-scripts >&2

target=../static/vendor
if [ "${1:-}" = --check ]; then
  target=$(mktemp -d)
  trap 'rm -rf "$target" "$target.test"' EXIT
fi
mkdir -p "$target"
copy() { # package file licence
  cp "node_modules/$1/$2" "$target/$(basename "$2")"
  cp "node_modules/$1/$3" "$target/$(basename "$1").LICENSE.txt"
}
copy @picocss/pico css/pico.classless.min.css LICENSE.md
copy htmx.org dist/htmx.min.js LICENSE
copy htmx-ext-sse dist/sse.min.js LICENSE
copy idiomorph dist/idiomorph-ext.min.js LICENSE
copy uplot dist/uPlot.iife.min.js LICENSE
copy uplot dist/uPlot.min.css LICENSE
copied=../testdata
[ "${1:-}" != --check ] || { mkdir "$target.test"; copied=$target.test; }
cp node_modules/axe-core/axe.min.js "$copied/" # the tests' check of accessibility
cp node_modules/axe-core/LICENSE "$copied/axe-core.LICENSE.txt"
if [ "${1:-}" = --check ]; then
  cmp "$copied/axe.min.js" ../testdata/axe.min.js
  diff -r "$target" ../static/vendor && echo "the console's assets are those of the lockfile"
fi
