/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Services in the system call: a socket that connects or sends to a frontend is given a backend there and then, and its
 * packets need no translation. What the application sees as its peer is the frontend. And who binds a port of the node that
 * leads to a service is told so. Hooks of the node's cgroup. */
#include <linux/bpf.h>
#include <linux/in.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IN_SYSTEM_CALL

#include "lib/addr.h"
#include "lib/datapath_maps.h"
#include "lib/drop.h"
#include "lib/own_socket.h"
#include "lib/service.h"

#define EADDRINUSE 98
#define ECONNREFUSED 111
#define SOCK_STREAM 1
#define AF_INET 2
#define IDENTITY_REMOTE_NODE 6

/* Whether the node's own sockets may not bind ports that lead to services. */
const volatile __u32 bind_protection = 1;

enum verdict { PROCEED = 1, REFUSE = 0 };

/* The frontend that a socket asks for. Ports of nodes are there on every address of this node, on its loopback when the
 * node itself asks, and on other nodes when any backend will do: the way there can be saved. */
static __always_inline struct service *frontend_of(struct bpf_sock_addr *ctx, const __u8 *addr, __be16 port)
{
	struct service *s = service_lookup(addr, port, ctx->protocol, SCOPE_INSIDE);
	struct ipcache_entry *who;

	if (s)
		return s;
	s = service_lookup_node_port(addr, port, ctx->protocol, SCOPE_INSIDE);
	if (!s)
		return NULL;
	if (addr_is_loopback(addr))
		return bpf_get_netns_cookie(ctx) == node_netns_cookie ? s : NULL;
	who = bpf_map_lookup_elem(&ipcache, addr);
	if (!who)
		return NULL;
	if (who->flags & IPCACHE_THIS_NODE)
		return s;
	return who->identity == IDENTITY_REMOTE_NODE && (s->flags & SERVICE_NODE_PORT) && !(s->flags & SERVICE_ONLY_LOCAL) ? s : NULL;
}

/* Keeps what the socket believes to talk to. A socket that sends datagram after datagram to one backend has it already, and
 * is counted once. */
static __always_inline void remember(const struct socket_peer_key *k, const struct socket_peer *peer, int sticky)
{
	if (sticky) {
		struct socket_peer *known = bpf_map_lookup_elem(&socket_peers, k);

		if (known && known->backend == peer->backend && known->generation == peer->generation && known->service == peer->service &&
		    known->port == peer->port && addr_equal(known->addr, peer->addr))
			return;
	}
	if (!bpf_map_update_elem(&socket_peers, k, peer, BPF_ANY))
		backend_count(peer->backend);
}

/* No packet will ever tell of a connection that is refused here: what would have been one is reported as a drop. */
static __noinline void report_refusal(struct bpf_sock_addr *ctx, const __u8 *addr, __u32 port_protocol, __u32 service)
{
	struct socket_key place = {};
	__u32 suppressed = 0, zero = 0;
	struct lb_config *config;
	struct endpoint *pod;
	const __u8 *from = NULL;
	struct event *ev;
	int ipv6 = !addr_is_ip4(addr);

	if (owner_place(&place, bpf_get_netns_cookie(ctx)))
		return;
	if (place.ifindex) {
		pod = bpf_map_lookup_elem(&endpoints, &place.ifindex);
		if (pod)
			from = ipv6 ? pod->ip6 : pod->ip4;
	} else {
		config = bpf_map_lookup_elem(&lb_config, &zero);
		if (config)
			from = ipv6 ? config->node6 : config->node4;
	}
	if (!from)
		return;
	if (!drop_may_report(place.ifindex, DROP_SERVICE_BACKEND_NOT_FOUND, &suppressed)) {
		count(COUNTER_DROPS_UNREPORTED);
		return;
	}
	ev = event_reserve();
	if (!ev)
		return;
	__builtin_memset(ev, 0, sizeof(*ev));
	ev->time_ns = bpf_ktime_get_ns();
	addr_copy_by4(ev->src, from);
	addr_copy(ev->dst, addr);
	ev->dport = port_protocol;
	ev->protocol = port_protocol >> 16;
	ev->tcp_flags[0] = ev->protocol == IPPROTO_TCP ? TCP_SYN : 0;
	ev->ifindex = place.ifindex;
	ev->suppressed = suppressed;
	ev->service = service;
	ev->type = EVENT_DROP;
	ev->reason = DROP_SERVICE_BACKEND_NOT_FOUND;
	ev->direction = DIRECTION_EGRESS;
	ev->flags = ipv6 ? EVENT_IPV6 : 0;
	process_of(&ev->who[0], bpf_get_current_task_btf());
	event_submit(ev);
}

/* Puts a backend in the place of a frontend. addr is replaced. 1: translated; 0: not a service; -1: nobody serves it. */
static __always_inline int translate(struct bpf_sock_addr *ctx, __u8 *addr, __be16 *port, int sticky)
{
	struct socket_peer_key k __attribute__((aligned(8))) = {};
	struct service *s = frontend_of(ctx, addr, *port);
	struct affinity_key who __attribute__((aligned(8)));
	struct socket_peer peer = {};
	__u32 number = 0, cause, hash;
	struct backend *b;

	if (!s)
		return 0;
	peer.netns = bpf_get_netns_cookie(ctx);
	/* Who asks is told by the packet's source, which a socket may not have yet: pods' packets are looked at. */
	if ((s->flags & SERVICE_SOURCE_RANGES) && peer.netns != node_netns_cookie)
		return 0;
	k.cookie = bpf_get_socket_cookie(ctx);
	affinity_key_of_socket(&who, peer.netns);
	/* A socket that sends datagram after datagram keeps its backend as long as the backends stay. */
	hash = sticky ? mix(mix(mix(s->id, k.cookie), k.cookie >> 32), s->id) : bpf_get_prandom_u32();
	b = service_pick(s, hash, &who, &number, &cause);
	if (!b) {
		report_refusal(ctx, addr, ctx->protocol << 16 | *port, s->id);
		return -1;
	}
	addr_copy(k.addr, b->addr);
	k.port = b->port;
	k.protocol = ctx->protocol;
	addr_copy(peer.addr, addr);
	peer.port = *port;
	peer.service = s->id;
	peer.backend = number;
	peer.generation = b->generation;
	remember(&k, &peer, sticky);
	addr_copy(addr, b->addr);
	*port = b->port;
	return 1;
}

static __always_inline int refuse(int error)
{
	bpf_set_retval(-error);
	return REFUSE;
}

/* A datagram socket that connects has no port before this is over: whoever sends first is noted then. */
static __always_inline void own_socket(struct bpf_sock_addr *ctx, int sending)
{
	struct unnamed_socket unnamed = {};
	struct bpf_sock *sk = ctx->sk;

	if (ctx->protocol != IPPROTO_UDP || !sk)
		return;
	if (sending || sk->src_port)
		own_datagrams(bpf_get_netns_cookie(ctx), sk->src_port);
	else
		bpf_sk_storage_get(&unnamed_sockets, sk, &unnamed, BPF_SK_STORAGE_GET_F_CREATE);
}

static __always_inline int out4(struct bpf_sock_addr *ctx, int sticky)
{
	__u8 addr[16] __attribute__((aligned(8)));
	__be16 port = ctx->user_port;
	int done;

	addr_from_ip4(addr, ctx->user_ip4);
	done = translate(ctx, addr, &port, sticky);
	if (done < 0)
		return refuse(ECONNREFUSED);
	if (done) {
		ctx->user_ip4 = *(__u32 *)(addr + 12);
		ctx->user_port = port;
	}
	return PROCEED;
}

static __always_inline void read_ip6(struct bpf_sock_addr *ctx, __u8 *addr)
{
	__u32 *w = (__u32 *)addr;

	w[0] = ctx->user_ip6[0];
	w[1] = ctx->user_ip6[1];
	w[2] = ctx->user_ip6[2];
	w[3] = ctx->user_ip6[3];
}

static __always_inline void write_ip6(struct bpf_sock_addr *ctx, const __u8 *addr)
{
	const __u32 *w = (const __u32 *)addr;

	ctx->user_ip6[0] = w[0];
	ctx->user_ip6[1] = w[1];
	ctx->user_ip6[2] = w[2];
	ctx->user_ip6[3] = w[3];
}

/* IPv4 through a socket of IPv6 comes here with its mapped address, which is how addresses are kept everywhere. */
static __always_inline int out6(struct bpf_sock_addr *ctx, int sticky)
{
	__u8 addr[16] __attribute__((aligned(8)));
	__be16 port = ctx->user_port;
	int done;

	read_ip6(ctx, addr);
	done = translate(ctx, addr, &port, sticky);
	if (done < 0)
		return refuse(ECONNREFUSED);
	if (done) {
		write_ip6(ctx, addr);
		ctx->user_port = port;
	}
	return PROCEED;
}

/* What the socket talks to, as the application knows it. */
static __always_inline struct socket_peer *peer_of(struct bpf_sock_addr *ctx, const __u8 *addr)
{
	struct socket_peer_key k __attribute__((aligned(8))) = {
		.cookie = bpf_get_socket_cookie(ctx),
		.port = ctx->user_port,
		.protocol = ctx->protocol,
	};

	addr_copy(k.addr, addr);
	return bpf_map_lookup_elem(&socket_peers, &k);
}

static __always_inline int in4(struct bpf_sock_addr *ctx)
{
	__u8 addr[16] __attribute__((aligned(8)));
	struct socket_peer *peer;

	addr_from_ip4(addr, ctx->user_ip4);
	peer = peer_of(ctx, addr);
	if (peer) {
		ctx->user_ip4 = *(__u32 *)(peer->addr + 12);
		ctx->user_port = peer->port;
	}
	return PROCEED;
}

static __always_inline int in6(struct bpf_sock_addr *ctx)
{
	__u8 addr[16] __attribute__((aligned(8)));
	struct socket_peer *peer;

	read_ip6(ctx, addr);
	peer = peer_of(ctx, addr);
	if (peer) {
		write_ip6(ctx, peer->addr);
		ctx->user_port = peer->port;
	}
	return PROCEED;
}

/* Does a port of the node lead to a service or a pod, on all addresses of the family? Then whoever bound it would listen and
 * never be asked: services come first, in the system call as on the wire. Sockets that leave the choice to the kernel ask for
 * port 0, and pods have ports of their own. */
static __always_inline int leads_to_service(struct bpf_sock_addr *ctx, const __u8 *addr)
{
	return service_lookup_node_port(addr, ctx->user_port, ctx->protocol, SCOPE_INSIDE) != NULL;
}

static __always_inline int is_protected(struct bpf_sock_addr *ctx)
{
	return bind_protection && ctx->user_port && bpf_get_netns_cookie(ctx) == node_netns_cookie;
}

SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx)
{
	__u8 addr[16] __attribute__((aligned(8)));

	if (!is_protected(ctx))
		return PROCEED;
	addr_from_ip4(addr, ctx->user_ip4);
	return leads_to_service(ctx, addr) ? refuse(EADDRINUSE) : PROCEED;
}

/* The unspecified address stands for IPv4's as well. Whether a socket has asked for IPv6 alone is not to be seen here. */
SEC("cgroup/bind6")
int bind6(struct bpf_sock_addr *ctx)
{
	__u8 addr[16] __attribute__((aligned(8)));

	if (!is_protected(ctx))
		return PROCEED;
	read_ip6(ctx, addr);
	if (leads_to_service(ctx, addr))
		return refuse(EADDRINUSE);
	if (!addr_is_unset(addr))
		return PROCEED;
	addr_from_ip4(addr, 0);
	return leads_to_service(ctx, addr) ? refuse(EADDRINUSE) : PROCEED;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	own_socket(ctx, 0);
	return out4(ctx, 0);
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	own_socket(ctx, 0);
	return out6(ctx, 0);
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	own_socket(ctx, 1);
	return out4(ctx, 1);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	own_socket(ctx, 1);
	return out6(ctx, 1);
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	return in4(ctx);
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	return in6(ctx);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	return in4(ctx);
}

SEC("cgroup/getpeername6")
int getpeername6(struct bpf_sock_addr *ctx)
{
	return in6(ctx);
}

/* The empty lines of assembler keep the families apart: the compiler would share code between them by adding to the
 * context's address, which the kernel refuses. */
static __always_inline void read_ends(struct bpf_sock_ops *ops, __u8 *local, __u8 *remote)
{
	__u32 *from = (__u32 *)local, *to = (__u32 *)remote;

	if (ops->family == AF_INET) {
		addr_from_ip4(local, ops->local_ip4);
		addr_from_ip4(remote, ops->remote_ip4);
		asm volatile("" ::"i"(4) : "memory");
		return;
	}
	from[0] = ops->local_ip6[0];
	from[1] = ops->local_ip6[1];
	from[2] = ops->local_ip6[2];
	from[3] = ops->local_ip6[3];
	to[0] = ops->remote_ip6[0];
	to[1] = ops->remote_ip6[1];
	to[2] = ops->remote_ip6[2];
	to[3] = ops->remote_ip6[3];
	asm volatile("" ::"i"(6) : "memory");
}

/* Only now a TCP connection has both its ends: from here the packets' flow can be told which frontend was meant. */
static __noinline void remember_frontend(struct bpf_sock_ops *ops, const __u8 *local, const __u8 *remote)
{
	struct socket_peer_key k __attribute__((aligned(8))) = {};
	struct service_flow_key f __attribute__((aligned(8))) = {};
	struct socket_service frontend = {};
	struct socket_peer *peer;

	k.cookie = bpf_get_socket_cookie(ops);
	k.port = ops->remote_port >> 16; /* the upper half, in network byte order */
	k.protocol = IPPROTO_TCP;
	addr_copy(k.addr, remote);
	peer = bpf_map_lookup_elem(&socket_peers, &k);
	if (!peer)
		return;
	addr_copy(f.src, local);
	addr_copy(f.dst, remote);
	f.sport = bpf_htons(ops->local_port);
	f.dport = k.port;
	f.protocol = IPPROTO_TCP;
	frontend.service = peer->service;
	frontend.port = peer->port;
	addr_copy(frontend.addr, peer->addr);
	bpf_map_update_elem(&socket_services, &f, &frontend, BPF_ANY);
}

SEC("sockops")
int socket_states(struct bpf_sock_ops *ops)
{
	__u8 local[16] __attribute__((aligned(8))), remote[16] __attribute__((aligned(8)));

	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		own_listening(ops);
		return 1;
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		read_ends(ops, local, remote);
		remember_frontend(ops, local, remote);
		if (own_connecting(ops, remote))
			bpf_sock_ops_cb_flags_set(ops, BPF_SOCK_OPS_STATE_CB_FLAG);
		return 1;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		read_ends(ops, local, remote);
		measure_socket(ops, remote, 0);
		return 1;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		read_ends(ops, local, remote);
		if (own_accepted(ops, remote))
			bpf_sock_ops_cb_flags_set(ops, BPF_SOCK_OPS_STATE_CB_FLAG);
		return 1;
	case BPF_SOCK_OPS_STATE_CB:
		if (ops->args[1] != BPF_TCP_CLOSE)
			return 1;
		read_ends(ops, local, remote);
		measure_socket(ops, remote, 1);
		return 1;
	default:
		return 1;
	}
}

/* A socket that waits for datagrams is known before it sends one. */
SEC("cgroup/post_bind4")
int post_bind4(struct bpf_sock *sk)
{
	/* What is bound to loopback has a port of its own beside the one that others reach. */
	if (sk->protocol == IPPROTO_UDP && (sk->src_ip4 & bpf_htonl(0xff000000)) != bpf_htonl(0x7f000000))
		own_datagrams(bpf_get_netns_cookie(sk), sk->src_port);
	return PROCEED;
}

SEC("cgroup/post_bind6")
int post_bind6(struct bpf_sock *sk)
{
	if (sk->protocol == IPPROTO_UDP && !(!sk->src_ip6[0] && !sk->src_ip6[1] && !sk->src_ip6[2] && sk->src_ip6[3] == bpf_htonl(1)))
		own_datagrams(bpf_get_netns_cookie(sk), sk->src_port);
	return PROCEED;
}

char _license[] SEC("license") = "Dual BSD/GPL";
