#!/usr/bin/env bash
# Runs the tests of aio-pika, an AMQP client for Python's asyncio, in Debian's version. It skips tests
# that need TLS or a TCP proxy of aiomisc.
source "$(dirname "$0")/lib.sh"
python=/usr/bin/python3 # Debian's Python finds Debian's packages
need "$python -c 'import aio_pika, pytest, pytest_asyncio, shortuuid'" python3-aio-pika python3-pytest python3-pytest-asyncio python3-shortuuid
tree=$(sources mosquito/aio-pika 8.2.5) || cannot "its sources cannot be fetched"
cd "$tree"
log=$CONFORMANCE_WORK/$name.log
PYTHONPATH=$here/python:$tree AMQP_URL=amqp://guest:guest@127.0.0.1:5672/ "$python" -m pytest -c /dev/null --rootdir=. -p loop_plugin -o asyncio_mode=auto -q \
  --ignore tests/test_amqp_robust_proxy.py --ignore tests/test_amqps.py --ignore tests/test_memory_leak.py tests >"$log" 2>&1 || grep -E '^(FAILED|ERROR)' "$log" || true
count() { tail -1 "$log" | grep -oE "[0-9]+ $1" | cut -d' ' -f1 || echo 0; }
failed=$(count failed) errors=$(count error)
result "$(count passed)" "$((${failed:-0} + ${errors:-0}))" "$(count skipped)"
