/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which frontend an address and port are, and which of its backends a connection gets. The same for sockets, for packets
 * on every hook, and for `weir service why`. */
#pragma once

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "addr.h"
#include "clock.h"
#include "pick_query.h"
#include "service_maps.h"

/* `weir service why` asks without leaving a trace: it defines this before it includes the file. */
#ifndef SERVICE_PICK_REMEMBERS
#define SERVICE_PICK_REMEMBERS 1
#endif

static __always_inline __u32 mix(__u32 h, __u32 v)
{
	h = (h ^ v) * 0x9e3779b1;
	return h ^ (h >> 15);
}

static __always_inline __u32 addr_hash(__u32 h, const __u8 *addr)
{
	const __u32 *w = (const __u32 *)addr;

	return mix(mix(mix(mix(h, w[0]), w[1]), w[2]), w[3]);
}

/* Of a connection, for Maglev: every node computes the same. */
static __always_inline __u32 connection_hash(const __u8 *src, __be16 sport, const __u8 *dst, __be16 dport, __u8 protocol)
{
	__u32 h = addr_hash(addr_hash(protocol, src), dst);

	h = mix(h, (__u32)sport << 16 | dport);
	h = (h ^ (h >> 13)) * 0xc2b2ae35;
	return h ^ (h >> 16);
}

static __always_inline struct service *service_lookup(const __u8 *addr, __be16 port, __u8 protocol, __u8 scope)
{
	struct service_key k __attribute__((aligned(8))) = { .port = port, .protocol = protocol, .scope = scope };

	addr_copy(k.addr, addr);
	return bpf_map_lookup_elem(&services, &k);
}

/* The port of every node: kept under the unspecified address of the family. */
static __always_inline struct service *service_lookup_node_port(const __u8 *addr, __be16 port, __u8 protocol, __u8 scope)
{
	struct service_key k __attribute__((aligned(8))) = { .port = port, .protocol = protocol, .scope = scope };

	if (addr_is_ip4(addr))
		*(__u32 *)(k.addr + 8) = bpf_htonl(0xffff);
	return bpf_map_lookup_elem(&services, &k);
}

static __always_inline struct backend *backend_lookup(__u32 number)
{
	return bpf_map_lookup_elem(&backends, &number);
}

static __always_inline __u32 slot_read(__u32 slot)
{
	__u32 element = slot / SLOTS_PER_ELEMENT;
	struct service_slots *s = bpf_map_lookup_elem(&lb_slots, &element);

	return s ? *(volatile __u32 *)&s->backend[slot % SLOTS_PER_ELEMENT] : 0;
}

/* A connection begins that was given this backend. */
static __always_inline void backend_count(__u32 number)
{
	__u32 element = number / BACKENDS_PER_ELEMENT;
	struct backend_counts *c = bpf_map_lookup_elem(&backend_counts, &element);

	if (c)
		__sync_fetch_and_add(&c->connections[number % BACKENDS_PER_ELEMENT], 1);
}

/* Is the client in the frontend's loadBalancerSourceRanges? */
static __always_inline int service_admits(const struct service *s, const __u8 *client)
{
	struct source_range_key k = { .prefixlen = 160, .service = s->id };

	if (!(s->flags & SERVICE_SOURCE_RANGES))
		return 1;
	addr_copy_by4(k.addr, client);
	return bpf_map_lookup_elem(&source_ranges, &k) != NULL;
}

/* Whose affinity a socket's is, whose address is not chosen yet: that of its network namespace. */
static __always_inline void affinity_key_of_socket(struct affinity_key *k, __u64 netns)
{
	__builtin_memset(k, 0, sizeof(*k));
	*(__u64 *)k->client = netns;
	k->from_socket = 1;
}

static __always_inline void affinity_key_of_client(struct affinity_key *k, const __u8 *client)
{
	addr_copy(k->client, client);
	k->service = 0;
	k->from_socket = 0;
}

/* Picks a backend. hash: of the connection or the socket. k: whose affinity, used when the service keeps one. Answers NULL
 * when there is nobody, else *number is the backend's. */
static __always_inline struct backend *service_pick(const struct service *s, __u32 hash, struct affinity_key *k, __u32 *number,
						    __u32 *cause)
{
	__u32 now = 0, slot;
	struct backend *b;

	*cause = PICK_NONE;
	if (!s->slot_count)
		return NULL;
	if (s->flags & SERVICE_AFFINITY) {
		struct affinity *a;

		k->service = s->id;
		now = bpf_ktime_get_ns() / 1000000000;
		a = bpf_map_lookup_elem(&service_affinity, k);
		if (a && now - a->last_used < s->affinity_seconds) {
			b = backend_lookup(a->backend);
			if (b && (b->flags & BACKEND_SERVING) && b->generation == a->generation) {
				if (SERVICE_PICK_REMEMBERS)
					a->last_used = now;
				*number = a->backend;
				*cause = PICK_AFFINITY;
				return b;
			}
		}
		/* Without memory of a client its address alone decides, so that every node decides alike. Sockets are this
		 * node's alone: there time decides too, so that what begins at once goes to one backend, and what begins
		 * after the affinity has ended may go to another. */
		hash = addr_hash(k->from_socket ? s->id + now / s->affinity_seconds : 0, k->client);
		hash = (hash ^ (hash >> 13)) * 0xc2b2ae35;
	}
	slot = s->first_slot + (__u32)(((__u64)hash * s->slot_count) >> 32);
	*number = slot_read(slot);
	b = backend_lookup(*number);
	if (!b || !(b->flags & BACKEND_USED))
		return NULL;
	if (SERVICE_PICK_REMEMBERS && (s->flags & SERVICE_AFFINITY)) {
		struct affinity fresh = { .backend = *number, .generation = b->generation, .last_used = now };

		bpf_map_update_elem(&service_affinity, k, &fresh, BPF_ANY);
	}
	*cause = s->flags & SERVICE_MAGLEV ? PICK_MAGLEV : PICK_RANDOM;
	return b;
}
