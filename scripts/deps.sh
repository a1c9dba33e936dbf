#!/bin/sh
# Installs what the tests need and the machine lacks, with the system's own package manager, and says so.
# usage: deps.sh redis|chromium|nginx|node|php...
set -eu

have() { command -v "$1" >/dev/null 2>&1; }

present() {
	case $1 in
	redis) have redis-server ;;
	chromium) [ -n "${CHROMIUM:-}" ] || have chromium || have chromium-browser || have google-chrome ||
		[ -x "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" ] ;;
	nginx) have nginx || [ -x /usr/sbin/nginx ] ;;
	node) have node && have npm ;;
	php) have php ;;
	*) echo "deps: unknown dependency $1; known: redis, chromium, nginx, node, php" >&2; exit 2 ;;
	esac
}

package() {
	case "$1:$2" in
	redis:apt-get) echo redis-server ;;
	redis:*) echo redis ;;
	chromium:*) echo chromium ;;
	nginx:apt-get) echo nginx-light ;;
	nginx:*) echo nginx ;;
	node:brew) echo node ;;
	node:*) echo nodejs npm ;;
	php:apt-get | php:dnf) echo php-cli ;;
	php:*) echo php ;;
	esac
}

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"
	elif have sudo; then sudo "$@"
	else echo "deps: installing needs root; run as root: $*" >&2; exit 1
	fi
}

missing=
for dep in "$@"; do
	present "$dep" || missing="$missing $dep"
done
[ -n "$missing" ] || exit 0

for manager in apt-get dnf apk pacman brew; do
	have "$manager" && break
	manager=
done
if [ -z "$manager" ]; then
	echo "deps: the tests need:$missing; no known package manager here (apt-get, dnf, apk, pacman, brew): install by hand" >&2
	exit 1
fi

packages=
for dep in $missing; do packages="$packages $(package "$dep" "$manager")"; done
echo "deps: installing$packages with $manager"
# shellcheck disable=SC2086 # the list is meant to be split
case $manager in
apt-get)
	as_root apt-get update -qq
	# The tests start their own servers; a packaged one must not come up by itself.
	as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $packages >/dev/null ;;
dnf) as_root dnf install -y -q $packages ;;
apk) as_root apk add -q $packages ;;
pacman) as_root pacman -S --noconfirm --needed $packages ;;
brew) brew install -q $packages ;;
esac

for dep in $missing; do
	present "$dep" || { echo "deps: $dep is still missing after installing$packages" >&2; exit 1; }
done
