#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# The examples of nbdkit-lacuna-plugin(1), as they stand there, one after the other.

source "${top_srcdir:-.}/tests/functions.sh"
requires_plugin
requires_program qemu-img qemu-io nbdcopy nbdinfo openssl

# `nbdkit lacuna' is the plugin that was built, `lacuna' the program.  What --run runs, and the shell that does, are not to
# be looked at by the sanitizer.
mkdir "$tmp/bin"
ln -s "$LACUNA" "$tmp/bin/lacuna"
cat >"$tmp/bin/nbdkit" <<END
#!/bin/bash
arguments=()
for argument; do
  case \$previous,\$argument in
    --run,*) argument="unset LD_PRELOAD; \$argument" ;;
    *,lacuna) argument=$LACUNA_PLUGIN ;;
  esac
  arguments+=("\$argument")
  previous=\$argument
done
export LD_PRELOAD=$(plugin_preload) ASAN_OPTIONS=detect_leaks=0
exec $(command -v nbdkit) "\${arguments[@]}"
END
chmod +x "$tmp/bin/nbdkit"
export PATH=$tmp/bin:$PATH

cd "$tmp"
/usr/bin/python3 -c '
import random
open ("image.raw", "wb").write (random.Random (1).randbytes (8 << 20) + bytes (56 << 20))
'

# Each verbatim paragraph of EXAMPLES becomes a file.
/usr/bin/python3 -c '
import re, sys
text = open (sys.argv[1]).read ()
text = re.search (r"^=head1 EXAMPLES\n(.*?)^=head1", text, re.M | re.S)[1]
examples = [p for p in re.split (r"\n\s*\n", text) if p.startswith (" ")]
for number, example in enumerate (examples):
    open (f"example.{number:02}", "w").write (example + "\n")
' "$top_srcdir/man/nbdkit-lacuna-plugin.pod"

count=0
for example in example.*; do
  echo "--- $example"
  cat "$example"
  # A daemon that does not write what it has to say to a pipe that somebody waits on.
  bash -e "$example" </dev/null >output 2>&1 || { cat output; fail "$example"; }
  cat output
  count=$((count + 1))
  if grep -q nbdkit "$example" && [ -s lacuna.pid ]; then
    daemon=$(cat lacuna.pid)
    server_pid=$daemon            # so that it ends with the test
  fi
  if grep -q '^ kill ' "$example"; then
    while kill -0 "$daemon" 2>/dev/null; do
      sleep 0.02
    done
    rm lacuna.pid
    server_pid=
  fi
done
[ $count -ge 7 ] || fail "only $count examples were found"

cmp image.raw copy.raw
lacuna check store.lacuna
lacuna info store.lacuna other --json | grep -q "\"size\": *$((3 << 40))" || fail "the other disk did not grow"
