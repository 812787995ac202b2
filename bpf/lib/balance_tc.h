/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Carries out what the balancer decided, on hooks that have a socket buffer: for devices without XDP, and for packets that
 * XDP leaves alone (fragments, options, what is too large). */
#pragma once

#include "balance.h"
#include "deliver.h"
#include "direct.h"
#include "drop.h"
#include "guard.h"
#include "icmp_error.h"
#include "nat.h"
#include "refuse.h"

/* The device towards an address, and the largest packet that goes there. 0, or the reason to drop. */
static __noinline int find_way(struct __sk_buff *skb, int ipv6, const __u8 *src, const __u8 *dst, struct frame_way *way)
{
	struct bpf_fib_lookup fib = {};
	__u32 mtu = 0;
	long rc;

	if (!src || !dst || !way)
		return DROP_FIB_LOOKUP_FAILED;
	fib.ifindex = skb->ifindex;
	if (ipv6) {
		fib.family = AF_INET6;
		addr_copy_by4((__u8 *)fib.ipv6_src, src);
		addr_copy_by4((__u8 *)fib.ipv6_dst, dst);
	} else {
		fib.family = AF_INET;
		fib.ipv4_src = *(const __u32 *)(src + 12);
		fib.ipv4_dst = *(const __u32 *)(dst + 12);
	}
	rc = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	if (rc != BPF_FIB_LKUP_RET_SUCCESS && rc != BPF_FIB_LKUP_RET_NO_NEIGH)
		return DROP_FIB_LOOKUP_FAILED;
	if (way->ifindex != fib.ifindex)
		way->macs_known = 0; /* they are of another device */
	way->ifindex = fib.ifindex;
	bpf_check_mtu(skb, fib.ifindex, &mtu, 0, 0); /* whatever it answers, it tells the MTU */
	way->mtu = mtu;
	return 0;
}

/* The largest packet that will leave for this one, with `room` bytes more. */
static __always_inline __u32 sent_len(struct __sk_buff *skb, const struct packet *p, __u32 room)
{
	if (!skb->gso_size)
		return skb->len - ETH_HLEN + room;
	if (p->protocol != IPPROTO_TCP)
		return skb->gso_size + (p->l4_off - ETH_HLEN + 8) + room;
	return skb->gso_size + (skb->len - ETH_HLEN - p->payload_len) + room;
}

static __always_inline int add_option4(struct __sk_buff *skb, const struct packet *p)
{
	struct {
		struct iphdr ip;
		struct dsr_option4 option;
	} h = {};

	if (bpf_skb_adjust_room(skb, sizeof(h.option), BPF_ADJ_ROOM_NET, 0) < 0 ||
	    bpf_skb_load_bytes(skb, ETH_HLEN, &h.ip, sizeof(h.ip)) < 0 || h.ip.ihl != 5)
		return DROP_INVALID_PACKET_DROPPED;
	h.option.type = DSR_OPTION4;
	h.option.len = sizeof(h.option);
	h.option.port = p->dport;
	h.option.addr = *(const __u32 *)(p->dst + 12);
	h.ip.ihl = sizeof(h) / 4;
	h.ip.tot_len = bpf_htons(bpf_ntohs(h.ip.tot_len) + sizeof(h.option));
	h.ip.check = 0;
	h.ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&h, sizeof(h), 0));
	return bpf_skb_store_bytes(skb, ETH_HLEN, &h, sizeof(h), 0) < 0 ? DROP_INVALID_PACKET_DROPPED : 0;
}

static __always_inline int add_option6(struct __sk_buff *skb, const struct packet *p)
{
	struct dsr_option6 o = {};
	struct {
		__be16 payload_len;
		__u8 next;
	} __attribute__((packed)) h;

	if (bpf_skb_adjust_room(skb, sizeof(o), BPF_ADJ_ROOM_NET, 0) < 0 || bpf_skb_load_bytes(skb, ETH_HLEN + 4, &h, sizeof(h)) < 0)
		return DROP_INVALID_PACKET_DROPPED;
	o.next = h.next;
	o.len = sizeof(o) / 8 - 1;
	o.type = DSR_OPTION6;
	o.option_len = 18;
	o.port = p->dport;
	__builtin_memcpy(o.addr, p->dst, 16);
	o.pad_type = 1;
	h.payload_len = bpf_htons(bpf_ntohs(h.payload_len) + sizeof(o));
	h.next = NEXT_DEST_OPTS;
	if (bpf_skb_store_bytes(skb, ETH_HLEN + 4, &h, sizeof(h), 0) < 0 || bpf_skb_store_bytes(skb, ETH_HLEN + 40, &o, sizeof(o), 0) < 0)
		return DROP_INVALID_PACKET_DROPPED;
	return 0;
}

/* Puts the packet as it is inside another one to the backend, whose port travels in the outer header. */
static __always_inline int add_tunnel(struct __sk_buff *skb, const struct packet *p, const struct backend *b, const struct lb_config *config)
{
	__u32 inner_len = skb->len - ETH_HLEN;

	if (p->ipv6) {
		struct ipv6hdr ip = {};

		if (bpf_skb_adjust_room(skb, sizeof(ip), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6) < 0)
			return DROP_INVALID_PACKET_DROPPED;
		*(__be32 *)&ip = bpf_htonl(0x60000000 | bpf_ntohs(b->port));
		ip.payload_len = bpf_htons(inner_len);
		ip.nexthdr = IPPROTO_IPV6;
		ip.hop_limit = 64;
		__builtin_memcpy(&ip.saddr, config->node6, 16);
		__builtin_memcpy(&ip.daddr, b->addr, 16);
		return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) < 0 ? DROP_INVALID_PACKET_DROPPED : 0;
	} else {
		struct iphdr ip = {};

		if (bpf_skb_adjust_room(skb, sizeof(ip), BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4) < 0)
			return DROP_INVALID_PACKET_DROPPED;
		ip.version = 4;
		ip.ihl = 5;
		ip.tot_len = bpf_htons(inner_len + sizeof(ip));
		ip.id = b->port;
		ip.frag_off = bpf_htons(0x4000);
		ip.ttl = 64;
		ip.protocol = IPPROTO_IPIP;
		ip.saddr = *(const __u32 *)(config->node4 + 12);
		ip.daddr = *(const __u32 *)(b->addr + 12);
		ip.check = fold(bpf_csum_diff(NULL, 0, (__be32 *)&ip, sizeof(ip), 0));
		return bpf_skb_store_bytes(skb, ETH_HLEN, &ip, sizeof(ip), 0) < 0 ? DROP_INVALID_PACKET_DROPPED : 0;
	}
}

static __noinline int to_backend(struct __sk_buff *skb, struct packet *p, struct found *found, struct scratch *s)
{
	struct lb_config *config = lb_config_read();
	__u32 now = clock_ticks(), room = 0;
	struct drop_context c = {};
	struct service_flow *f;
	struct backend *b;
	int reason = 0, tunnel;

	if (!p || !found || !s || !config)
		return TC_ACT_SHOT;
	f = found->flow;
	b = found->backend;
	if (!f || !b)
		return TC_ACT_SHOT;
	c.service = f->service;
	if ((f->flags & FLOW_SNAT) && addr_is_unset(nat_address(config, p->ipv6)))
		return drop(skb, p, &c, DROP_NO_MAPPING_FOR_NAT_MASQUERADE);
	tunnel = (f->flags & FLOW_DSR) && (config->flags & LB_DSR_TUNNEL);
	if (tunnel)
		room = p->ipv6 ? 40 : 20;
	else if ((f->flags & FLOW_DSR) && names_frontend(p))
		room = option_len(p->ipv6);
	if (!f->way.ifindex || now - f->way.checked > HOP_LIFETIME) {
		reason = find_way(skb, p->ipv6, f->flags & FLOW_SNAT ? nat_address(config, p->ipv6) : p->src, b->addr, &f->way);
		if (reason)
			return drop(skb, p, &c, reason);
		f->way.checked = now;
		if (!keep_reply(p, f, b, s))
			return drop(skb, p, &c, DROP_NO_MAPPING_FOR_NAT_MASQUERADE);
		if ((f->flags & FLOW_DSR) && !room && !skb->gso_size && skb->len - ETH_HLEN + option_len(p->ipv6) <= f->way.mtu)
			room = option_len(p->ipv6);
	}
	if (f->way.mtu && sent_len(skb, p, room) > f->way.mtu)
		return refuse_packet(skb, p, REFUSE_TOO_BIG, f->way.mtu - room);
	reason = take_hop(skb, p->ipv6);
	if (!reason && !tunnel)
		reason = nat_rewrite(skb, p, END_DST, b->addr, b->port);
	if (!reason && (f->flags & FLOW_SNAT))
		reason = nat_rewrite(skb, p, END_SRC, nat_address(config, p->ipv6), f->nat_port);
	if (!reason && tunnel)
		reason = add_tunnel(skb, p, b, config);
	else if (!reason && room)
		reason = p->ipv6 ? add_option6(skb, p) : add_option4(skb, p);
	if (reason)
		return drop(skb, p, &c, reason);
	count(COUNTER_BALANCED);
	note_sent_on(skb);
	return bpf_redirect_neigh(f->way.ifindex, NULL, 0, 0);
}

static __noinline int to_client(struct __sk_buff *skb, struct packet *p, struct service_reply *r, struct scratch *s)
{
	__u32 now = clock_ticks();
	struct drop_context c = {};
	struct service *svc;
	int reason = 0;

	if (!p || !r || !s)
		return TC_ACT_SHOT;
	svc = service_lookup(r->frontend, r->frontend_port, p->protocol, SCOPE_OUTSIDE);
	c.service = svc ? svc->id : 0;
	c.flags = EVENT_REPLY_PACKET;
	if (!r->way.ifindex || now - r->way.checked > HOP_LIFETIME) {
		reason = find_way(skb, p->ipv6, r->frontend, r->client, &r->way);
		if (reason)
			return drop(skb, p, &c, reason);
		r->way.checked = now;
	}
	if (r->way.mtu && sent_len(skb, p, 0) > r->way.mtu)
		return refuse_packet(skb, p, REFUSE_TOO_BIG, r->way.mtu);
	reason = take_hop(skb, p->ipv6);
	if (!reason)
		reason = nat_rewrite(skb, p, END_SRC, r->frontend, r->frontend_port);
	if (!reason)
		reason = nat_rewrite(skb, p, END_DST, r->client, r->client_port);
	if (reason)
		return drop(skb, p, &c, reason);
	count(COUNTER_BALANCED);
	note_sent_on(skb);
	return bpf_redirect_neigh(r->way.ifindex, NULL, 0, 0);
}

/* A backend on this node's own network: the node's stack answers to our address, which leads back here. */
static __noinline int to_stack(struct __sk_buff *skb, struct packet *p, struct found *found, struct scratch *s)
{
	struct lb_config *config = lb_config_read();
	struct drop_context c = {};
	__u32 now = clock_ticks();
	struct service_flow *f;
	struct backend *b;
	int reason;

	if (!p || !found || !s || !config)
		return TC_ACT_SHOT;
	f = found->flow;
	b = found->backend;
	if (!f || !b)
		return TC_ACT_SHOT;
	c.service = f->service;
	if (addr_is_unset(nat_address(config, p->ipv6)))
		return drop(skb, p, &c, DROP_NO_MAPPING_FOR_NAT_MASQUERADE);
	if (host_firewall) {
		int act = guard_backend(skb, p, s, b, found->fresh);

		if (act != TC_ACT_OK)
			return act;
	}
	if (now - f->way.checked > HOP_LIFETIME) {
		f->way.checked = now;
		if (!keep_reply(p, f, b, s))
			return drop(skb, p, &c, DROP_NO_MAPPING_FOR_NAT_MASQUERADE);
	}
	reason = nat_rewrite(skb, p, END_DST, b->addr, b->port);
	if (!reason)
		reason = nat_rewrite(skb, p, END_SRC, nat_address(config, p->ipv6), f->nat_port);
	if (reason)
		return drop(skb, p, &c, reason);
	count(COUNTER_BALANCED);
	if (write_pod_macs(skb, net_ifindex) < 0)
		return TC_ACT_SHOT;
	return bpf_redirect(host_ifindex, BPF_F_INGRESS);
}

/* ICMP errors about what was translated here. */
static __noinline int balance_error(struct __sk_buff *skb, struct packet *p, struct scratch *s)
{
	struct packet *inner;
	struct lb_config *config = lb_config_read();
	struct service_reply *r;
	struct service_flow *f;
	struct drop_context c = {};
	struct frame_way *way;
	struct backend *b;
	int reason;

	if (!p || !s || !config)
		return TC_ACT_OK;
	inner = &s->inner;
	way = &s->flow.way;
	if (read_inner(skb, p, inner) || !addr_equal(inner->src, p->dst))
		return TC_ACT_OK;
	addr_copy(s->flow_key.src, inner->dst);
	addr_copy(s->flow_key.dst, inner->src);
	s->flow_key.sport = inner->dport;
	s->flow_key.dport = inner->sport;
	s->flow_key.protocol = inner->protocol;
	s->flow_key.pad[0] = s->flow_key.pad[1] = s->flow_key.pad[2] = 0;
	if (addr_equal(p->dst, nat_address(config, p->ipv6))) {
		/* About a packet to a backend: for the client. */
		r = bpf_map_lookup_elem(&service_replies, &s->flow_key);
		if (!r || find_way(skb, p->ipv6, r->frontend, r->client, way))
			return TC_ACT_OK;
		reason = take_hop(skb, p->ipv6);
		if (!reason)
			reason = nat_rewrite_inner(skb, p, inner, END_SRC << 16 | r->client_port, r->client);
		addr_copy(inner->src, r->client);
		if (!reason)
			reason = nat_rewrite_inner(skb, p, inner, END_DST << 16 | r->frontend_port, r->frontend);
		if (!reason)
			reason = nat_rewrite(skb, p, END_DST, r->client, p->dport);
		if (!reason && addr_equal(p->src, s->flow_key.src))
			reason = nat_rewrite(skb, p, END_SRC, r->frontend, p->sport);
		return reason ? drop(skb, p, &c, reason) : bpf_redirect_neigh(way->ifindex, NULL, 0, 0);
	}
	/* About an answer to a client: for the backend. */
	f = bpf_map_lookup_elem(&service_flows, &s->flow_key);
	b = f && !(f->flags & FLOW_LOCAL) ? flow_backend(f) : NULL;
	if (!b || find_way(skb, p->ipv6, p->src, b->addr, way))
		return TC_ACT_OK;
	reason = take_hop(skb, p->ipv6);
	if (!reason)
		reason = nat_rewrite_inner(skb, p, inner, END_SRC << 16 | b->port, b->addr);
	addr_copy(inner->src, b->addr);
	if (!reason && (f->flags & FLOW_SNAT))
		reason = nat_rewrite_inner(skb, p, inner, END_DST << 16 | f->nat_port, nat_address(config, p->ipv6));
	if (!reason)
		reason = nat_rewrite(skb, p, END_DST, b->addr, p->dport);
	return reason ? drop(skb, p, &c, reason) : bpf_redirect_neigh(way->ifindex, NULL, 0, 0);
}

/* One packet that is not for a pod of this node. */
static __noinline int balance_skb(struct __sk_buff *skb, int ipv6)
{
	struct drop_context c = {};
	struct found found = {};
	struct packet *p;
	struct scratch *s;
	__u32 zero = 0;
	int way;

	s = bpf_map_lookup_elem(&scratch, &zero);
	if (!s)
		return TC_ACT_OK;
	p = &s->packet;
	__builtin_memset(p, 0, sizeof(*p));
	if (ipv6 ? packet_read_ip6(skb, p) : packet_read_ip4(skb, p))
		return TC_ACT_OK;
	if (p->icmp_error)
		return balance_error(skb, p, s);
	if (!balanced_protocol(p->protocol))
		return TC_ACT_OK;
	way = balance(p, s, &found, clock_ticks());
	if (way == WAY_NONE || way == WAY_HERE)
		return TC_ACT_OK;
	if (way < 0)
		return drop(skb, p, &c, -way);
	if (found.fresh) {
		int reason = balance_begin(p, &found, s);

		if (reason)
			return drop(skb, p, &c, reason);
	} else if (p->protocol == IPPROTO_TCP && (p->tcp_flags & (TCP_FIN | TCP_RST))) {
		balance_closing(p, &found, s);
	}
	if (way == WAY_CLIENT)
		return to_client(skb, p, found.reply, s);
	return way == WAY_STACK ? to_stack(skb, p, &found, s) : to_backend(skb, p, &found, s);
}
