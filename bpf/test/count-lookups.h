/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Included before a program by the test that counts its map lookups: [0] all but [1], those of epochs, which is an array
 * and addressed directly. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} lookups SEC(".maps");

static __always_inline void *counted_lookup(void *map, const void *key, __u32 kind)
{
	__u64 *n = bpf_map_lookup_elem(&lookups, &kind);

	if (n)
		*n += 1;
	return bpf_map_lookup_elem(map, key);
}

#define bpf_map_lookup_elem(map, key) counted_lookup(map, key, (void *)(map) == (void *)&epochs)
