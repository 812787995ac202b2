/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The hooks, and who may send what on each. */
#pragma once

#include "datapath_maps.h"
#include "drop_reasons.h"

enum hook {
	HOOK_POD = 1,	/* from a pod */
	HOOK_NODE = 2,	/* from the node's own stack, over weir_net */
	HOOK_DEVICE = 3, /* from a network */
};

/* The kernel is to go on with the packet as if Weir were not there. */
#define NOT_OURS 1000

/* May the sender be who it says it is on this hook, and is the packet Weir's at all? */
static __always_inline int check_sender(struct __sk_buff *skb, const struct ipcache_entry *sender, const struct ipcache_entry *receiver, int hook)
{
	if (hook == HOOK_POD) {
		__u32 ifindex = skb->ifindex;

		if (sender->ifindex == ifindex)
			return 0;
		return bpf_map_lookup_elem(&endpoints, &ifindex) ? DROP_INVALID_SOURCE_IP : DROP_ENDPOINT_NOT_READY;
	}
	if (!receiver->ifindex) {
		if (receiver->flags & IPCACHE_NAT)
			return NOT_OURS;
		if (hook == HOOK_NODE || (receiver->flags & IPCACHE_LOCAL_BLOCK))
			return DROP_STALE_OR_UNROUTABLE_IP;
		return NOT_OURS;
	}
	if (sender->ifindex)
		return DROP_INVALID_SOURCE_IP;
	if (hook == HOOK_DEVICE && (sender->flags & IPCACHE_THIS_NODE))
		return DROP_INVALID_IDENTITY;
	return 0;
}
