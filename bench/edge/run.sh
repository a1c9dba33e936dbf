#!/bin/bash
# Measures the edge beside nginx and bare net/http, alternating in one run: see ../README.md.
# Needs wrk, nginx, redis-server, curl. ROUNDS (5) of SECONDS (3) each; TANDEM names a binary, else it is built.
set -euo pipefail
cd "$(dirname "$0")/../.."
ROUNDS=${ROUNDS:-5} SECONDS_EACH=${SECONDS_EACH:-3} BASE=${BASE:-28100}
dir=$(mktemp -d)
chmod 755 "$dir" # nginx gives up its privileges
pids=()
cleanup() { kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$dir"; }
trap cleanup EXIT
start() { "$@" >>"$dir/log" 2>&1 & pids+=($!); }
up=$BASE ngx=$((BASE+1)) bare=$((BASE+2)) barefiles=$((BASE+3)) edge=$((BASE+4)) admin=$((BASE+5)) redis=$((BASE+6)) edgefiles=$((BASE+7)) plain=$((BASE+8))

CGO_ENABLED=0 go build -o "$dir/edge" ./bench/edge
[ -n "${TANDEM:-}" ] || { CGO_ENABLED=0 go build -o "$dir/tandem" ./cmd/tandem; TANDEM=$dir/tandem; }
mkdir "$dir/www"
head -c 1024 /dev/zero | tr '\0' x >"$dir/www/1k"
head -c 102400 /dev/zero | tr '\0' x >"$dir/www/100k"

# One nginx is the server behind every proxy, another is measured.
nginx_conf() {
  echo "daemon off; worker_processes $1; pid $dir/$2.pid; error_log $dir/$2.err; events { worker_connections 2048; }
http { access_log off; keepalive_requests 100000000; sendfile on; tcp_nopush on; client_body_temp_path $dir/$2.body;
  proxy_temp_path $dir/$2.proxy; fastcgi_temp_path $dir/$2.f; uwsgi_temp_path $dir/$2.u; scgi_temp_path $dir/$2.s;
  $3 }" >"$dir/$2.conf"
  start nginx -c "$dir/$2.conf" -p "$dir"
}
nginx_conf 1 behind "server { listen 127.0.0.1:$up; location / { root $dir/www; default_type text/plain; } }"
nginx_conf 2 nginx "upstream u { server 127.0.0.1:$up; keepalive 64; }
  server { listen 127.0.0.1:$ngx; location /files/ { alias $dir/www/; default_type text/plain; }
    location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection \"\"; } }"
start "$dir/edge" -listen 127.0.0.1:$bare -proxy http://127.0.0.1:$up
start "$dir/edge" -listen 127.0.0.1:$barefiles -files "$dir/www"
start redis-server --port $redis --save "" --appendonly no --dir "$dir"
cat >"$dir/tandem.yaml" <<YAML
redis: redis://127.0.0.1:$redis/0
listeners:
  - address: 127.0.0.1:$edge
    routes:
      - {path: /1k, upstream: {targets: ["http://127.0.0.1:$up"], login: required}}
      - {path: /, use: webapp}
  - {address: 127.0.0.1:$edgefiles, files: {root: $dir/www}}
  - {address: 127.0.0.1:$plain, upstream: {targets: ["http://127.0.0.1:$up"]}}
admin: {address: 127.0.0.1:$admin}
YAML
start "$TANDEM" serve --config "$dir/tandem.yaml"
tandem=${pids[-1]}
for _ in $(seq 100); do curl -sf "127.0.0.1:$admin/readyz" >/dev/null && break; sleep 0.1; done

# A person who is logged in.
cookie=$(curl -s -D - -o /dev/null --data-urlencode username=bench --data-urlencode 'password=correct horse battery' \
  "127.0.0.1:$edge/register" | sed -n 's/^[Ss]et-[Cc]ookie: \(tandem=[^;]*\).*/\1/p')
code=$(curl -s -o /dev/null -w '%{http_code}' -H "Cookie: $cookie" "127.0.0.1:$edge/1k")
[ "$code" = 200 ] || { echo "no session: $code" >&2; exit 1; }

# ticks of the processor that a process and its children have used
ticks() { awk '{s += $14 + $15} END {print s}' $(for p in "$1" $(pgrep -P "$1"); do echo /proc/$p/stat; done); }
run() { # name pid url [header]
  local before after out
  before=$(ticks "$2")
  out=$(wrk -t2 -c64 -d"${SECONDS_EACH}s" --latency ${4:+-H "$4"} "$3")
  after=$(ticks "$2")
  echo "$out" | awk -v n="$1" -v t=$((after-before)) -v hz="$(getconf CLK_TCK)" '
    /99%/ {p99=$2} /requests in/ {r=$1} /Requests\/sec/ {rps=$2} /Non-2xx/ {bad=1}
    END {printf "%s %.0f %.1f %s%s\n", n, rps, t/hz*1e6/r, p99, bad ? " ERRORS" : ""}' >>"$dir/results"
}
for _ in $(seq "$ROUNDS"); do
  run "proxy-1k nginx" "${pids[1]}" http://127.0.0.1:$ngx/1k
  run "proxy-1k bare" "${pids[2]}" http://127.0.0.1:$bare/1k
  run "proxy-1k tandem,no-session" "$tandem" http://127.0.0.1:$plain/1k
  run "proxy-1k tandem,session" "$tandem" http://127.0.0.1:$edge/1k "Cookie: $cookie"
  for size in 1k 100k; do
    run "files-$size nginx" "${pids[1]}" http://127.0.0.1:$ngx/files/$size
    run "files-$size bare" "${pids[3]}" http://127.0.0.1:$barefiles/$size
    run "files-$size tandem" "$tandem" http://127.0.0.1:$edgefiles/$size
  done
done
echo "medians of $ROUNDS rounds of ${SECONDS_EACH} s, $(nproc) processors"
printf '%-10s %-20s %10s %8s %10s %12s\n' what who req/s ×bare p99 'µs CPU/req'
awk '{k=$1" "$2; n[k]++; rps[k,n[k]]=$3; cpu[k,n[k]]=$4; p99[k,n[k]]=$5; if (!(k in seen)) {seen[k]=1; order[++m]=k} if ($6) print k, $6 > "/dev/stderr"}
  function median(a, k,   i, j, t, c, v) {c=n[k]; for(i=1;i<=c;i++) v[i]=a[k,i]+0; for(i=1;i<=c;i++) for(j=i+1;j<=c;j++) if (v[j]<v[i]) {t=v[i]; v[i]=v[j]; v[j]=t} return v[int((c+1)/2)]}
  END {for(i=1;i<=m;i++) {split(order[i], p, " "); printf "%-10s %-20s %10.0f %8.2f %10s %12.1f\n", p[1], p[2], median(rps, order[i]), median(rps, order[i])/median(rps, p[1]" bare"), p99[order[i], int((n[order[i]]+1)/2)], median(cpu, order[i])}}' "$dir/results"
