/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which processes are at the ends of what is reported. */
#pragma once

#include <linux/in.h>

#include "addr.h"
#include "datapath_maps.h"
#include "drop_reasons.h"
#include "process_maps.h"

static __always_inline void owner_copy(struct process_ref *to, const struct process_ref *from)
{
	to->start_ns = from->start_ns;
	to->pid = from->pid;
	to->exec = from->exec;
	to->uid = from->uid;
}

/* The socket at one end of an event. k is room for its key; ifindex is that of the pod, 0 for the node itself. */
static __noinline int name_owner(struct event *ev, struct socket_key *k, __u32 ifindex, int end)
{
	struct socket_owner *o;

	if (!ev || !k)
		return 0;
	k->ifindex = ifindex;
	k->protocol = ev->protocol;
	k->local_port = end ? ev->dport : ev->sport;
	k->remote_port = 0;
	__builtin_memset(k->remote, 0, sizeof(k->remote));
	__builtin_memset(k->pad, 0, sizeof(k->pad));
	if (ev->protocol == IPPROTO_TCP) {
		k->remote_port = end ? ev->sport : ev->dport;
		addr_copy_by4(k->remote, end ? ev->src : ev->dst);
		o = bpf_map_lookup_elem(&socket_owners, k);
		/* Ports that are used again: what has closed was another connection. */
		if (o && (o->flags & SOCKET_MEASURED) && (ev->type == EVENT_NEW || ev->type == EVENT_DROP))
			o = NULL;
		if (!o && end) { /* who listens, as long as nobody has accepted */
			k->remote_port = 0;
			__builtin_memset(k->remote, 0, sizeof(k->remote));
			o = bpf_map_lookup_elem(&socket_owners, k);
		}
	} else {
		o = bpf_map_lookup_elem(&socket_owners, k);
	}
	if (o)
		owner_copy(&ev->who[end & 1], &o->who);
	return 0;
}

/* Both ends. The addresses say whose they are; where the source is forged, the device does. room holds an address. */
static __noinline int name_owners(struct event *ev, struct socket_key *k, struct ipcache_key *room)
{
	struct ipcache_entry *end;

	if (!ev || !k || !room || (ev->protocol != IPPROTO_TCP && ev->protocol != IPPROTO_UDP))
		return 0;
	if (ev->type == EVENT_DROP && (ev->reason == DROP_INVALID_SOURCE_IP || ev->reason == DROP_INVALID_SOURCE_MAC))
		return 0;
	addr_copy_by4(room->addr, ev->src);
	end = bpf_map_lookup_elem(&ipcache, room);
	if (end && (end->ifindex || (end->flags & IPCACHE_THIS_NODE)))
		name_owner(ev, k, end->ifindex, 0);
	addr_copy_by4(room->addr, ev->dst);
	end = bpf_map_lookup_elem(&ipcache, room);
	if (end && (end->ifindex || (end->flags & IPCACHE_THIS_NODE)))
		name_owner(ev, k, end->ifindex, 1);
	return 0;
}
