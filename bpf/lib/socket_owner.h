/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who owns a socket: written where a process connects, listens, binds or sends, read where a connection is reported. */
#pragma once

#include "addr.h"
#include "process_maps.h"

/* Cookie of the network namespace of the node itself; set by the agent. */
const volatile __u64 node_netns_cookie = 0;

/* Sockets whose process is not known for sure yet. Goes with the socket. */
struct unnamed_socket {
	struct socket_key key; /* of TCP */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct unnamed_socket);
} unnamed_sockets SEC(".maps");

/* Whose network it is. 0, or -1 when it is neither a pod's nor the node's. */
static __always_inline int owner_place(struct socket_key *k, __u64 cookie)
{
	__u32 *ifindex;

	if (cookie == node_netns_cookie) {
		k->ifindex = 0;
		return 0;
	}
	ifindex = bpf_map_lookup_elem(&netns_pods, &cookie);
	if (!ifindex)
		return -1;
	k->ifindex = *ifindex;
	return 0;
}
