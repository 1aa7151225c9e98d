#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# Whatever the engine has that populates the cache, uses mappings or deallocates stands in the explorer's tables
# (tests/explorer/tables.c, roles.c): every kind of request, every op, every function that locks a range, puts frames into
# the cache or drops them, or changes a map.  A new one fails here until it has its row, or its reason for having none.
# The table of the threads (tests/pairs/table.c) has the same rows.

source "${top_srcdir:-.}/tests/functions.sh"

store=$top_srcdir/common/store

# The enumerators of an enum in store.h.
enumerators() {
  sed -n "/^enum $1 {/,/}/p" "$store/store.h" | sed 's,/\*.*\*/,,' | grep -o "${2}_[A-Z_]*"
}

# Calls of what matters, as FILE:FUNCTION.  Of a map's functions, those that only look are left out.
sites() {
  for file in "$store"/*.c; do
    case ${file##*/} in test-* | cache*.c | range-lock.c | extent-map.c | checker*) continue ;; esac
    awk -v file="${file##*/}" '
      /^[a-z_][a-z0-9_]* \(/ { name = $1 }
      /range_lock_(acquire|try|upgrade) \(|cache_(drop|invalidate|publish|adopt|fill_begin) \(/ { print file ":" name }
      match ($0, /extent_map_[a-z_]+ \(/) {
        call = substr ($0, RSTART + 11, RLENGTH - 13)
        if (call !~ /^(init|destroy|reserve[a-z_]*|[a-z_]*_nodes|lookup|scan|step|check|mapped|mapped_in|extents)$/) print file ":" name
      }' "$file"
  done | sort -u
}

# Names that ops are given: by op_init, and those of requests, in a table.
op_names() {
  find "$store" -name '*.c' ! -name 'test-*' -exec grep -ho 'op_init (.*"[a-z-]*"' {} + | grep -o '"[a-z-]*"' | tr -d '"'
  sed -n '/^request_init/,/^}/p' "$store/request.c" | grep -o '{ "[a-z-]*"' | tr -d '{ "'
}

"$top_builddir/tests/explorer/explorer" --roles >"$tmp/roles" || fail "$(grep FAIL "$tmp/roles")"
{
  enumerators request_kind REQUEST | sed 's/^/request /'
  enumerators admin_kind ADMIN | sed 's/^/admin /'
  op_names | sed 's/^/op /'
  sites | sed 's/^/site /'
} | sort -u >"$tmp/engine"
cut -d' ' -f1,2 "$tmp/roles" | sort -u >"$tmp/known"
for word in request admin op site; do
  [ "$(grep -c "^$word " "$tmp/engine")" -gt 4 ] || fail "no $word was found in the sources"
done
missing=$(comm -23 "$tmp/engine" "$tmp/known")
gone=$(comm -13 "$tmp/engine" "$tmp/known")
[ -z "$missing" ] || fail "not in tests/explorer/roles.c: $missing"
[ -z "$gone" ] || fail "in tests/explorer/roles.c, but not in the engine: $gone"
rows=$(diff <("$top_builddir/tests/explorer/explorer" --rows | sort) <("$top_builddir/tests/pairs/pairs" --rows | sort)) ||
  fail "the tables of tests/explorer and tests/pairs differ: $rows"
