/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Direct server return, the backend's side: a node that took a packet for a frontend sent it on to this node, where the
 * backend is, and says which frontend was meant: in an option of the IP header, or by sending the packet as it was inside
 * another one. Replies then go from here to the client, with the frontend's address.
 * What is said is believed only if the frontend has this packet's destination as a backend. */
#pragma once

#include "policy.h"
#include "datapath_maps.h"
#include "dsr_options.h"
#include "sender.h"
#include "service.h"
#include "translate.h"

/* The frontend as this node knows it: an address of its own row, or a node port of another node. */
static __always_inline struct service *frontend_elsewhere(const __u8 *addr, __be16 port, __u8 protocol)
{
	struct service *s = service_lookup(addr, port, protocol, SCOPE_OUTSIDE);
	struct ipcache_entry *who;

	if (s)
		return s;
	who = ipcache_find(addr);
	if (!who || who->identity != IDENTITY_REMOTE_NODE)
		return NULL;
	s = service_lookup_node_port(addr, port, protocol, SCOPE_INSIDE);
	return s && (s->flags & SERVICE_NODE_PORT) ? s : NULL;
}

/* The number of the backend if it is one of this node's behind that frontend, else 0. */
static __always_inline __u32 direct_backend(const struct service *s, const __u8 *addr, __be16 port, __u8 protocol)
{
	struct direct_backend_key k __attribute__((aligned(8))) = { .service = s->id, .port = port, .protocol = protocol };
	__u32 *number;

	addr_copy(k.addr, addr);
	number = bpf_map_lookup_elem(&direct_backends, &k);
	return number ? *number : 0;
}

/* Reads the option of a packet to a pod of this node, when it has one. 0, or the reason to drop.
 * Not static, so that it is verified once and not anew for every way that leads here. */
__noinline int read_direct(struct __sk_buff *skb, const struct packet *p, struct meant *m)
{
	__u8 addr[16] __attribute__((aligned(8)));
	struct service *s;
	__be16 port;

	if (!p || !m)
		return 0;
	if (p->ipv6) {
		struct dsr_option6 o;
		__u8 next;

		if (bpf_skb_load_bytes(skb, ETH_HLEN + 6, &next, 1) < 0 || next != NEXT_DEST_OPTS)
			return 0;
		if (bpf_skb_load_bytes(skb, ETH_HLEN + 40, &o, sizeof(o)) < 0 || o.type != DSR_OPTION6 || o.option_len != 18)
			return 0;
		__builtin_memcpy(addr, o.addr, 16);
		port = o.port;
	} else {
		struct dsr_option4 o;

		if (bpf_skb_load_bytes(skb, ETH_HLEN + 20, &o, sizeof(o)) < 0 || o.type != DSR_OPTION4 || o.len != sizeof(o))
			return 0;
		addr_from_ip4(addr, o.addr);
		port = o.port;
	}
	s = frontend_elsewhere(addr, port, p->protocol);
	if (!s || !direct_backend(s, p->dst, p->dport, p->protocol))
		return DROP_DIRECT_RETURN_NOT_BELIEVED;
	addr_copy(m->addr, addr);
	m->port = port;
	m->service = s->id;
	return 0;
}

/* A packet inside another one, from a node, to a pod of this one. It carries the backend's port where the outer header has
 * room: the identification, or the flow label. Takes the outer header off, remembers the backend, and lets the packet
 * come in once more. Answers the hook's verdict, or minus the reason to drop. */
static __noinline int unpack(struct __sk_buff *skb, struct packet *p, struct scratch *s)
{
	struct service_flow *f;
	struct service *svc;
	struct backend *b;
	__be16 port, ports[2];
	int fragmented = 0, later = 0;
	__u32 number, off;

	if (!p || !s)
		return -DROP_INVALID_PACKET_DROPPED;
	f = &s->flow;
	__builtin_memset(f, 0, sizeof(*f));
	__builtin_memset(&s->flow_key, 0, sizeof(s->flow_key));
	if (s->judgement.from.identity != IDENTITY_REMOTE_NODE)
		return -DROP_ENCAPSULATION_TRAFFIC_IS_PROHIBITED;
	off = p->l4_off;
	if (p->ipv6) {
		struct ipv6hdr ip;
		__be32 label;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &label, 4) < 0 || bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) < 0)
			return -DROP_CT_TRUNCATED_OR_INVALID_HEADER;
		port = bpf_htons((__u16)bpf_ntohl(label));
		addr_copy_by4(s->flow_key.src, (const __u8 *)&ip.saddr);
		addr_copy_by4(s->flow_key.dst, (const __u8 *)&ip.daddr);
		s->flow_key.protocol = ip.nexthdr;
		off += sizeof(ip);
		if (ip.nexthdr == NEXT_FRAGMENT) {
			struct {
				__u8 next, reserved;
				__be16 fragment;
				__be32 id;
			} h;

			if (bpf_skb_load_bytes(skb, off, &h, sizeof(h)) < 0)
				return -DROP_CT_TRUNCATED_OR_INVALID_HEADER;
			s->flow_key.protocol = h.next;
			fragmented = (bpf_ntohs(h.fragment) & 0xfff9) != 0;
			later = (bpf_ntohs(h.fragment) & 0xfff8) != 0;
			s->fragment_key.id = h.id;
			off += sizeof(h);
		}
	} else {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN + 4, &port, 2) < 0 || bpf_skb_load_bytes(skb, off, &ip, sizeof(ip)) < 0)
			return -DROP_CT_TRUNCATED_OR_INVALID_HEADER;
		if (ip.ihl != 5 || ip.version != 4)
			return -DROP_ENCAPSULATION_TRAFFIC_IS_PROHIBITED;
		addr_from_ip4(s->flow_key.src, ip.saddr);
		addr_from_ip4(s->flow_key.dst, ip.daddr);
		s->flow_key.protocol = ip.protocol;
		fragmented = (bpf_ntohs(ip.frag_off) & 0x3fff) != 0;
		later = (bpf_ntohs(ip.frag_off) & 0x1fff) != 0;
		s->fragment_key.id = ip.id;
		off += sizeof(ip);
	}
	if (fragmented) {
		addr_copy(s->fragment_key.src, s->flow_key.src);
		addr_copy(s->fragment_key.dst, s->flow_key.dst);
		s->fragment_key.protocol = s->flow_key.protocol;
	}
	if (later) {
		struct fragment_ports *first = fragment_lookup(&s->fragment_key);

		if (!first)
			return -DROP_FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND;
		ports[0] = first->sport;
		ports[1] = first->dport;
	} else if (bpf_skb_load_bytes(skb, off, ports, sizeof(ports)) < 0) {
		return -DROP_CT_TRUNCATED_OR_INVALID_HEADER;
	} else if (fragmented) { /* the others may be here before this one comes in once more */
		struct fragment_ports first = { .sport = ports[0], .dport = ports[1], .seen = clock_ticks() };

		bpf_map_update_elem(&fragments, &s->fragment_key, &first, BPF_ANY);
	}
	s->flow_key.sport = ports[0];
	s->flow_key.dport = ports[1];
	svc = frontend_elsewhere(s->flow_key.dst, ports[1], s->flow_key.protocol);
	number = svc ? direct_backend(svc, p->dst, port, s->flow_key.protocol) : 0;
	b = number ? backend_lookup(number) : NULL;
	if (!b)
		return -DROP_DIRECT_RETURN_NOT_BELIEVED;
	f->backend = number;
	f->generation = b->generation;
	f->service = svc->id;
	f->last_seen = clock_ticks();
	f->lifetime = flow_lifetime(s->flow_key.protocol);
	f->flags = FLOW_LOCAL | FLOW_DSR;
	bpf_map_update_elem(&service_flows, &s->flow_key, f, BPF_ANY);
	if (bpf_skb_adjust_room(skb, p->ipv6 ? -40 : -20, BPF_ADJ_ROOM_MAC, 0) < 0)
		return -DROP_INVALID_PACKET_DROPPED;
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}
