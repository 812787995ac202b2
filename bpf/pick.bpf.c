/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Answers "which backend does this connection get, and why?" by the steps of the datapath itself, and changes nothing.
 * Never attached: the agent runs it with the question as a packet, because the kinds of program that take a context of
 * their own may not look into prefix tables. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define SERVICE_PICK_REMEMBERS 0
#include "lib/service.h"

#define QUESTION_OFFSET 16

/* A connection that is known keeps its backend for as long as that is there. */
static __always_inline int pick_known(struct pick_query *q, __u32 service)
{
	struct service_flow_key k __attribute__((aligned(8))) = {
		.sport = q->client_port,
		.dport = q->port,
		.protocol = q->protocol,
	};
	struct service_flow *f;
	struct backend *b;

	addr_copy(k.src, q->client);
	addr_copy(k.dst, q->addr);
	f = bpf_map_lookup_elem(&service_flows, &k);
	if (!f || f->service != service)
		return 0;
	b = backend_lookup(f->backend);
	if (!b || !(b->flags & BACKEND_USED) || b->generation != f->generation)
		return 0;
	q->answer.backend = f->backend;
	q->answer.cause = PICK_FLOW;
	return 1;
}

SEC("tc")
int pick(struct __sk_buff *skb)
{
	struct affinity_key who __attribute__((aligned(8)));
	struct pick_query q __attribute__((aligned(8)));
	__u32 number = 0, cause = PICK_NONE, hash;
	struct service *s;

	if (bpf_skb_load_bytes(skb, QUESTION_OFFSET, &q, sizeof(q)))
		return 1;
	s = service_lookup(q.addr, q.port, q.protocol, q.scope);
	if (!s && q.node_port && q.scope == SCOPE_INSIDE)
		s = service_lookup_node_port(q.addr, q.port, q.protocol, q.scope);
	if (!s)
		return 0;
	q.found = 1;
	q.answer.service = s->id;
	q.answer.flags = s->flags;
	q.answer.slot_count = s->slot_count;
	q.admitted = service_admits(s, q.client);
	if (q.netns) {
		affinity_key_of_socket(&who, q.netns);
		hash = 0;
	} else {
		affinity_key_of_client(&who, q.client);
		hash = connection_hash(q.client, q.client_port, q.addr, q.port, q.protocol);
	}
	if (q.netns || !pick_known(&q, s->id)) {
		service_pick(s, hash, &who, &number, &cause);
		/* A socket rolls dice; what it would roll is not to be known. */
		if (q.netns && cause != PICK_AFFINITY && !(s->flags & SERVICE_AFFINITY))
			number = 0;
		q.answer.backend = number;
		q.answer.cause = number || !q.netns ? cause : cause ? PICK_RANDOM : PICK_NONE;
	}
	return bpf_skb_store_bytes(skb, QUESTION_OFFSET, &q, sizeof(q), 0) ? 2 : 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
