/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Notes whose a socket is, for the hooks of control groups. They run as the process that makes the system call, but for
 * what packets set off. */
#pragma once

#include <bpf/bpf_endian.h>

#include "addr.h"
#include "socket_owner.h"
#include "task.h"

/* A datagram socket is known by its port. Who sends datagram after datagram is noted once. */
static __noinline int own_datagrams(__u64 cookie, __u32 local_port)
{
	struct socket_key k __attribute__((aligned(8))) = {};
	struct socket_owner fresh = {}, *known;

	if (!local_port || owner_place(&k, cookie) || process_of(&fresh.who, bpf_get_current_task_btf()))
		return 0;
	k.protocol = IPPROTO_UDP;
	k.local_port = bpf_htons(local_port);
	known = bpf_map_lookup_elem(&socket_owners, &k);
	if (known && known->who.pid == fresh.who.pid && known->who.start_ns == fresh.who.start_ns && known->who.exec == fresh.who.exec)
		return 0;
	fresh.since_ns = bpf_ktime_get_ns();
	bpf_map_update_elem(&socket_owners, &k, &fresh, BPF_ANY);
	return 0;
}

/* The place of a TCP socket; 0 when it is one of ours. What stays in its network namespace is never reported. */
static __always_inline int tcp_place(struct socket_key *k, struct bpf_sock_ops *ops, const __u8 *remote)
{
	if (addr_is_loopback(remote) || owner_place(k, bpf_get_netns_cookie(ops)))
		return -1;
	k->protocol = IPPROTO_TCP;
	k->local_port = bpf_htons(ops->local_port);
	k->remote_port = ops->remote_port >> 16; /* the upper half, in network byte order */
	addr_copy_by4(k->remote, remote);
	return 0;
}

/* Room for the hooks of TCP, whose stack holds little more than keys. */
static __noinline int own_connecting(struct bpf_sock_ops *ops, const __u8 *remote)
{
	struct socket_key k __attribute__((aligned(8))) = {};
	struct socket_owner fresh = {};

	if (tcp_place(&k, ops, remote) || process_of(&fresh.who, bpf_get_current_task_btf()))
		return 0;
	fresh.since_ns = bpf_ktime_get_ns();
	bpf_map_update_elem(&socket_owners, &k, &fresh, BPF_ANY);
	return 1;
}

static __noinline int own_listening(struct bpf_sock_ops *ops)
{
	struct socket_key k __attribute__((aligned(8))) = {};
	struct socket_owner fresh = {};
	__u8 any[16] __attribute__((aligned(8))) = {};

	if (tcp_place(&k, ops, any) || process_of(&fresh.who, bpf_get_current_task_btf()))
		return 0;
	k.remote_port = 0;
	fresh.since_ns = bpf_ktime_get_ns();
	bpf_map_update_elem(&socket_owners, &k, &fresh, BPF_ANY);
	return 0;
}

/* A connection that a listener got: no process runs for it yet. */
static __noinline int own_accepted(struct bpf_sock_ops *ops, const __u8 *remote)
{
	struct socket_key any __attribute__((aligned(8))) = {};
	struct socket_owner fresh = {}, *listener;
	struct unnamed_socket key = {};
	struct bpf_sock *sk = ops->sk;

	if (tcp_place(&key.key, ops, remote))
		return 0;
	any.ifindex = key.key.ifindex;
	any.local_port = key.key.local_port;
	any.protocol = IPPROTO_TCP;
	listener = bpf_map_lookup_elem(&socket_owners, &any);
	if (listener)
		fresh.who = listener->who;
	fresh.since_ns = bpf_ktime_get_ns();
	fresh.flags = SOCKET_ACCEPTED;
	fresh.rtt_us = ops->srtt_us >> 3;
	bpf_map_update_elem(&socket_owners, &key.key, &fresh, BPF_ANY);
	if (sk)
		bpf_sk_storage_get(&unnamed_sockets, sk, &key, BPF_SK_STORAGE_GET_F_CREATE);
	return 1;
}

/* What the socket has measured, for as long as it can be asked. */
static __noinline int measure_socket(struct bpf_sock_ops *ops, const __u8 *remote, int closed)
{
	struct socket_key k __attribute__((aligned(8))) = {};
	struct socket_owner *known;

	if (tcp_place(&k, ops, remote))
		return 0;
	known = bpf_map_lookup_elem(&socket_owners, &k);
	if (!known)
		return 0;
	known->rtt_us = ops->srtt_us >> 3;
	known->min_rtt_us = ops->rtt_min == ~0U ? 0 : ops->rtt_min; /* nothing was measured */
	known->retransmits = ops->total_retrans;
	if (closed)
		known->flags |= SOCKET_MEASURED;
	else
		known->handshake_us = (bpf_ktime_get_ns() - known->since_ns) / 1000;
	return 0;
}
