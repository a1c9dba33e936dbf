#!/bin/bash
# Builds a stand-in for a named base image from what Debian packages and the machine's Go provide, and tags it with
# that name: enough of the image for deploy/ and no more. usage: standin.sh IMAGE WORKDIR
set -euo pipefail
image=$1
dir=$2/$(echo "$image" | tr ':/' '--')
rm -rf "$dir"
mkdir -p "$dir"/{bin,etc,tmp,usr/local/bin,usr/sbin,var/log/nginx,var/lib/nginx,data,lib,lib64}
chmod 1777 "$dir/tmp"

need() {
	local binary=$1 package=$2
	command -v "$binary" >/dev/null || {
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$package" >/dev/null
	}
	command -v "$binary" >/dev/null || { echo "standin: $binary (package $package) cannot be had for $image" >&2; exit 1; }
}

# A dynamic binary with the libraries that ldd names, at the paths it looks for them.
add() {
	local binary
	binary=$(readlink -f "$(command -v "$1")")
	cp "$binary" "$dir/usr/local/bin/$(basename "$1")"
	ldd "$binary" | grep -o '/[^ ]*' | while read -r lib; do
		mkdir -p "$dir$(dirname "$lib")"
		cp -L "$lib" "$dir$lib"
	done
}

need busybox busybox-static
cp "$(readlink -f "$(command -v busybox)")" "$dir/bin/busybox"
for applet in $("$dir/bin/busybox" --list); do [ -e "$dir/bin/$applet" ] || ln -s busybox "$dir/bin/$applet"; done
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nwww-data:x:33:33::/:/bin/false\n' >"$dir/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\nwww-data:x:33:\n' >"$dir/etc/group"
config='ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

case $image in
alpine:*) ;;
redis:*)
	need redis-server redis-server
	add redis-server
	add redis-cli
	# As in the named image, protected mode is off: the network between the containers is the protection.
	printf '#!/bin/sh\n[ "$1" = redis-server ] && set -- "$@" --protected-mode no\nexec "$@"\n' >"$dir/usr/local/bin/entrypoint"
	chmod +x "$dir/usr/local/bin/entrypoint"
	config="$config
WORKDIR /data
ENTRYPOINT [\"/usr/local/bin/entrypoint\"]
CMD [\"redis-server\"]"
	;;
nginx:*)
	need nginx nginx-light
	add nginx
	mkdir -p "$dir/etc/nginx" "$dir/usr/share/nginx" "$dir/var/lib/nginx/body"
	config="$config
CMD [\"nginx\", \"-c\", \"/etc/nginx/nginx.conf\", \"-g\", \"daemon off;\"]"
	;;
golang:*)
	goroot=$(go env GOROOT)
	mkdir -p "$dir/usr/local/go" "$dir/go/proxy"
	cp -r "$goroot"/{bin,pkg,src,VERSION,go.env} "$dir/usr/local/go/"
	# The image cannot reach a module proxy; it gets the modules that this repository's go.sum already pins.
	go mod download
	cp -r "$(go env GOMODCACHE)/cache/download/." "$dir/go/proxy/"
	config='ENV PATH=/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin GOPATH=/go GOPROXY=file:///go/proxy GONOSUMDB=* GOFLAGS=-buildvcs=false GOTOOLCHAIN=local HOME=/tmp'
	;;
*) echo "standin: no stand-in known for $image" >&2; exit 2 ;;
esac

printf 'FROM scratch\nCOPY . /\n%s\n' "$config" >"$dir.Dockerfile"
DOCKER_BUILDKIT=0 docker build -q -t "$image" -f "$dir.Dockerfile" "$dir" >/dev/null
rm -rf "$dir" "$dir.Dockerfile"
