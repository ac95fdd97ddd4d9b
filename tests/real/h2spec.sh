#!/usr/bin/env bash
# Runs h2spec over TLS: ./h2spec.sh HOST PORT [OPTIONS], or ./h2spec.sh --install to print where it is.
set -eu
cache=${STAGEDOOR_CACHE:-$HOME/.cache/stagedoor}
# What Go takes for the latest; 2.6.0 does not install as a module.
version=v2.2.1+incompatible
program=$cache/h2spec-${version%+*}/h2spec

if [ ! -x "$program" ]; then
  command -v go >/dev/null || { echo "Go is missing" >&2; exit 1; }
  GOBIN=$(dirname "$program") go install "github.com/summerwind/h2spec/cmd/h2spec@$version" >&2
fi
[ "${1:-}" != --install ] || { echo "$program"; exit 0; }
[ $# -ge 2 ] || { sed -n '2s/^# //p' "$0" >&2; exit 2; }
host=$1 port=$2
shift 2
exec "$program" -h "$host" -p "$port" -t -k -o 5 "$@"
