#!/bin/sh
# Runs every fuzz target of the repository in turn. usage: fuzz.sh DURATION
set -eu
go list ./... | while read -r pkg; do
	go test -list '^Fuzz' "$pkg" | grep '^Fuzz' | while read -r target; do
		echo "== $pkg $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$1" "$pkg"
	done
done
echo "== ./sessionstore, other orders of events"
go test -run 'TestAnyOrder|TestAtTheSameTime' -rapid.checks 500 -rapid.seed "$(date +%s)" ./sessionstore
