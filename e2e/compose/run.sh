#!/bin/bash
# Starts deploy/compose.yaml on a real container engine and drives the main job through the balancer.
# Uses the engine that answers; else installs and starts one of its own (Debian, as root) and ends it afterwards.
# Where no engine can be had it says so loudly and exits 0, so that the rest of the suite counts.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
engine_pid=

cleanup() {
	code=$?
	if [ -n "${up:-}" ]; then
		[ $code = 0 ] || compose logs --tail 50 || true
		compose down -v --remove-orphans >/dev/null 2>&1 || true
	fi
	if [ -n "$engine_pid" ]; then
		kill "$engine_pid" 2>/dev/null || true
		for _ in $(seq 50); do kill -0 "$engine_pid" 2>/dev/null || break; sleep 0.2; done
	fi
	rm -rf "$work" 2>/dev/null || true
	exit $code
}
trap cleanup EXIT

not_tested() {
	echo "==================================================================="
	echo "COMPOSE NOT TESTED: $1"
	echo "==================================================================="
	exit 0
}

install_engine() {
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
	echo "compose: installing docker.io, docker-compose, busybox-static, nginx-light with apt-get"
	apt-get update -qq &&
		DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends \
			docker.io docker-compose busybox-static nginx-light iptables >/dev/null
}

start_engine() {
	command -v dockerd >/dev/null || return 1
	export DOCKER_HOST="unix://$work/docker.sock"
	dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/docker.pid" -H "$DOCKER_HOST" \
		>"$work/dockerd.log" 2>&1 &
	engine_pid=$!
	for _ in $(seq 100); do
		docker info >/dev/null 2>&1 && return 0
		kill -0 "$engine_pid" 2>/dev/null || break
		sleep 0.2
	done
	tail -5 "$work/dockerd.log"
	return 1
}

if ! docker info >/dev/null 2>&1; then
	command -v dockerd >/dev/null && { command -v docker-compose >/dev/null || docker compose version >/dev/null 2>&1; } ||
		install_engine || not_tested "there is no container engine here and none can be installed"
	start_engine || not_tested "the container engine does not start here"
fi
if docker compose version >/dev/null 2>&1; then tool=(docker compose); else tool=(docker-compose); fi
compose() { "${tool[@]}" -p tandem-e2e -f "$root/deploy/compose.yaml" "$@"; }

# The named base images; stand-ins of the same name where they cannot be pulled.
for image in golang:1.26-alpine alpine:3 redis:7-alpine nginx:1-alpine; do
	docker image inspect "$image" >/dev/null 2>&1 || timeout 60 docker pull -q "$image" >/dev/null 2>&1 || {
		echo "compose: $image cannot be pulled; building a stand-in"
		"$here/standin.sh" "$image" "$work/image"
	}
done

free_port() { python3 -c 'import socket; s=socket.socket(); s.bind(("127.0.0.1",0)); print(s.getsockname()[1])' 2>/dev/null || echo 18080; }
TANDEM_PORT=$(free_port)
export TANDEM_PORT DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0 BUILDKIT_PROGRESS=plain
up=1
compose build >"$work/build.log" 2>&1 || { tail -30 "$work/build.log"; exit 1; }
docker image inspect tandem --format 'compose: image tandem, {{.Size}} bytes'
compose up -d
cd "$root"
TANDEM_E2E_URL="http://127.0.0.1:$TANDEM_PORT" go test -count=1 -timeout 5m -run '^TestMainJob$' -v ./e2e
compose ps
